"""A family: how the models of a type differ from Llama. `layers_of` reads the layers of a config by its family."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from infer.cost.fields import Fields, Flag
from infer.cost.model import Attention, Experts, Indexer, LatentAttention, Layer, Mixer, Recurrence, Weights, linear
from infer.cost.recurrences import mamba2, plain_heads
from infer.errors import UserError


@dataclass(frozen=True, slots=True)
class Place:
    """A layer to be read."""

    index: int
    kind: str
    """As in transformers' `layer_types`: full_attention, sliding_attention, linear_attention, ..."""


Size = Callable[[Fields, Place], int]
"""A size, of a config and one of its layers."""


def of(*names: str) -> Size:
    """The size in the first of these fields that is set."""
    return lambda c, place: c.size(*names)


Mixers = Callable[["Family", Fields, Place], tuple[Mixer, ...]]
"""The mixers of one layer."""


@dataclass(frozen=True)
class Family:
    """How the models of a type are built. The defaults are Llama's."""

    # attention
    kinds: Callable[[Fields, int], str] = lambda c, index: "full_attention"
    """The kind of the layer of this index, where the config does not list them."""
    window: str = "sliding_window"
    slides: Flag = True
    """Whether windows are used at all."""
    heads: Callable[[Fields, Place], tuple[int, int, int, int]] = lambda c, place: plain_heads(c)
    """Query heads, key-value heads, dimensions of keys and of values."""
    mixers: Mixers = lambda family, c, place: (grouped(family, c, place),)
    qkv_bias: Flag = "attention_bias"
    out_bias: Flag = "attention_bias"
    qk_norm: Literal["", "head", "head+bias", "all"] = ""
    """Norms of queries and keys: one for all heads, or over all of them together."""
    qk_normed: Flag = True
    indexes: Callable[[Fields, int], bool] = lambda c, index: True
    """Whether the layer of this index has an indexer of its own; others take the choice of an earlier one."""
    gate: Callable[[Fields], Literal["", "all", "query", "head"]] = lambda c: ""
    """Attention's output is gated: all numbers by a matrix of their own or by that of queries, or each head."""
    sinks: Flag = False
    """Each head has a trained score that belongs to no token."""
    # norms
    norm: Literal["", "weight", "weight+bias"] = "weight"
    normed: Flag = True
    norms: Callable[[Fields], int] = lambda c: 2
    """In each layer."""
    last_norm: Callable[[Fields], bool] = lambda c: True
    # MLP
    gated: bool = True
    mlp_bias: Flag = "mlp_bias"
    inner: Size = lambda c, place: c.need("intermediate_size")
    # mixtures of experts
    moe: Flag = False
    sparse: Callable[[Fields, int], bool] = lambda c, index: True
    """Whether the layer of this index has one."""
    expert_inner: Size = lambda c, place: c.need("moe_intermediate_size", "intermediate_size")
    expert_width: Size = lambda c, place: c.hidden
    """Numbers that experts read and write: a hidden state, or a projection of it."""
    expert_bias: bool = False
    shared_inner: Size = lambda c, place: 0
    shared_gate: bool = False
    router_bias: bool = False
    correction: bool = False
    """The router has trained numbers to balance its experts, one for each."""
    # the rest
    alone: bool = False
    """Each layer is a mixer or an MLP, with one norm."""
    more: Callable[[Fields, Place], Weights] = lambda c, place: Weights()
    """Whatever else a layer has."""
    outside: Callable[[Fields], Weights] = lambda c: Weights()
    """Whatever else there is before and after the layers, the last norm apart."""
    positions: Callable[[Fields], int] = lambda c: 0
    """Trained embeddings of positions."""
    table: Callable[[Fields], tuple[int, int]] = lambda c: (0, 0)
    """Rows and columns of a second table that tokens are looked up in."""
    width: Callable[[Fields], int] = lambda c: c.hidden
    """Columns of the table of words."""
    head_bias: Flag = False
    tied: Flag = "tie_word_embeddings"
    """The head is the table of words."""


def layers_of(family: Family, c: Fields) -> list[Layer]:
    """The layers of a config. Raises UserError for a kind of layer that is not known."""
    listed = c.listed("layer_types", "layers_block_type", "attention_layers")
    kinds = [str(kind) for kind in listed or (family.kinds(c, index) for index in range(c.layers))]
    return [_layer(family, c, Place(index, _KINDS.get(kind, kind))) for index, kind in enumerate(kinds[: c.layers])]


_MIXERS = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention", "hybrid")

_KINDS = {
    # other names, some of them in older configs
    "attention": "full_attention",
    "indexed_attention": "full_attention",
    "global": "full_attention",
    "local": "sliding_attention",
    "mamba": "linear_attention",
    "conv": "linear_attention",
    "recurrent": "linear_attention",
}


def _layer(family: Family, c: Fields, place: Place) -> Layer:
    if place.kind not in _MIXERS and not (family.alone and place.kind in ("mlp", "moe")):
        raise UserError(f"layer {place.index} is of the kind {place.kind!r}, which the cost model does not know")
    weights = norm_of(family, c) * (1 if family.alone else family.norms(c)) + family.more(c, place)
    mixers = family.mixers(family, c, place) if place.kind in _MIXERS else ()
    if family.alone and mixers:
        return Layer(weights, mixers)
    bias = c.flag(family.mlp_bias)
    sparse = place.kind == "moe" if family.alone else family.sparse(c, place.index)
    if not (c.flag(family.moe) and experts_of(c) and sparse):
        return Layer(weights + mlp(c.hidden, family.inner(c, place), family.gated, bias), mixers)
    count, width = experts_of(c), family.expert_width(c, place)
    weights += linear(c.hidden, count, family.router_bias) + Weights(0, count * family.correction)
    if width != c.hidden:
        weights += linear(c.hidden, width, bias) + linear(width, c.hidden, bias)
    if shared := family.shared_inner(c, place):
        weights += mlp(c.hidden, shared, family.gated, bias) + linear(c.hidden, int(family.shared_gate))
    expert = mlp(width, family.expert_inner(c, place), family.gated, family.expert_bias)
    active = c.need("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts")
    return Layer(weights, mixers, (Experts(expert, count, active),))


def experts_of(c: Fields) -> int:
    """The number of experts, in layers that have any."""
    return c.size("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")


# parts of a layer


def mlp(width: int, inner: int, gated: bool, bias: bool) -> Weights:
    return linear(width, inner, bias) * (1 + gated) + linear(inner, width, bias)


def norm_of(family: Family, c: Fields) -> Weights:
    """A norm of hidden states."""
    return Weights(0, {"": 0, "weight": 1, "weight+bias": 2}[family.norm] * c.hidden * c.flag(family.normed))


def grouped(family: Family, c: Fields, place: Place) -> Attention:
    """Grouped-query attention. Queries, keys and values may come from one matrix: the count is the same."""
    heads, kv_heads, key_dim, value_dim = family.heads(c, place)
    gate, bias = family.gate(c), c.flag(family.qkv_bias)
    gates = {"": 0, "head": heads, "all": heads * value_dim, "query": heads * key_dim}[gate]
    norms = {"": 0, "head": 2 * key_dim, "head+bias": 4 * key_dim, "all": (heads + kv_heads) * key_dim}[family.qk_norm]
    weights = linear(c.hidden, heads * key_dim + kv_heads * (key_dim + value_dim), bias)
    weights += linear(heads * value_dim, c.hidden, c.flag(family.out_bias))
    weights += linear(c.hidden, gates, bias and gate == "query")
    weights += Weights(0, norms * c.flag(family.qk_normed) + heads * c.flag(family.sinks))
    windowed, chunked = place.kind != "full_attention" and c.flag(family.slides), place.kind == "chunked_attention"
    window = c.size("attention_chunk_size" if chunked else family.window) if windowed else 0
    return Attention(weights, heads, kv_heads, key_dim, value_dim, window or None, chunked and window > 0)


def latent(family: Family, c: Fields, place: Place) -> LatentAttention:
    """Multi-head latent attention, with an indexer where the config has one."""
    bias = c.flag(family.qkv_bias)
    heads, q_rank, kv_rank = c.need("num_attention_heads"), c.size("q_lora_rank"), c.need("kv_lora_rank")
    nope, rope, value = c.need("qk_nope_head_dim"), c.need("qk_rope_head_dim"), c.need("v_head_dim")
    if q_rank:
        weights = linear(c.hidden, q_rank, bias) + linear(q_rank, heads * (nope + rope)) + Weights(0, q_rank)
    else:
        weights = linear(c.hidden, heads * (nope + rope))
    weights += linear(c.hidden, kv_rank + rope, bias) + Weights(0, kv_rank)
    weights += linear(kv_rank, heads * (nope + value)) + linear(heads * value, c.hidden, bias)
    indexer = None
    if (topk := c.size("index_topk")) and not family.indexes(c, place.index):
        indexer = Indexer(heads=0, dim=0, topk=topk)
    elif topk:
        indexer = Indexer(c.need("index_n_heads"), c.need("index_head_dim"), topk)
        weights += linear(q_rank, indexer.heads * indexer.dim) + linear(c.hidden, indexer.dim + indexer.heads)
        weights += Weights(0, 2 * indexer.dim)
    return LatentAttention(weights, heads, kv_rank, nope, rope, value, indexer)


def instead(
    recurrence: Callable[[Fields], Recurrence], attention: Callable[["Family", Fields, Place], Mixer] = grouped
) -> Mixers:
    """Layers of linear attention have this recurrence, the others attention."""

    def mixers(family: Family, c: Fields, place: Place) -> tuple[Mixer, ...]:
        return (recurrence(c) if place.kind == "linear_attention" else attention(family, c, place),)

    return mixers


def side_by_side(family: Family, c: Fields, place: Place) -> tuple[Mixer, ...]:
    """Attention and a state space in each layer."""
    return grouped(family, c, replace(place, kind="full_attention")), mamba2(c)
