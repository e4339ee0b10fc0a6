"""The sizes of a model that its cost depends on. `infer.cost.config` reads them from a `config.json`.

Parameters are counted matrix by matrix; the sum equals that of the loaded model. Equal layers are stored once, with
their number.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from infer.cost.attention import Decode, Dense


@dataclass(frozen=True, slots=True)
class Attention:
    """Grouped-query attention: multi-head if `kv_heads` is `heads`, multi-query if it is 1."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    """Tokens that a token attends to, including itself; None: all before it."""
    qkv_bias: bool = False
    out_bias: bool = False
    norm_params: int = 0
    """Parameters of the norms of queries and keys."""

    @property
    def matrix_params(self) -> int:
        """Parameters of the matrices that each token is multiplied with."""
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def params(self) -> int:
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) * self.qkv_bias + self.hidden * self.out_bias
        return self.matrix_params + biases + self.norm_params

    @property
    def kv_size(self) -> int:
        """Numbers that one token adds to the KV cache."""
        return 2 * self.kv_heads * self.head_dim

    @property
    def score_flops(self) -> int:
        """FLOPs of one query's scores for one key: q k, in all heads."""
        return 2 * self.heads * self.head_dim

    @property
    def decode_flops(self) -> int:
        """FLOPs of one query with one key and its value: q k and p v, in all heads."""
        return 4 * self.heads * self.head_dim

    @property
    def prefill_flops(self) -> int:
        return self.decode_flops

    @property
    def expand_flops(self) -> int:
        """FLOPs that each cached token costs again in a later prefill."""
        return 0


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, 2405.04434, section 2.1): the cache holds one latent for all heads.

    A prefill expands latents into keys and values of all heads, and expands those of the cached prefix again. A decode
    step instead multiplies the expansion into query and output ("absorbed") and attends to the latents themselves, as
    in vLLM.
    """

    hidden: int
    heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    bias: bool = False
    window: None = None

    @property
    def matrix_params(self) -> int:
        query_size = self.heads * (self.nope_dim + self.rope_dim)
        query = self.hidden * query_size
        if self.q_rank is not None:
            query = self.q_rank * (self.hidden + query_size)
        latent = self.hidden * (self.kv_rank + self.rope_dim)
        return query + latent + self.expand_flops // 2 + self.heads * self.v_dim * self.hidden

    @property
    def params(self) -> int:
        norms = (self.q_rank or 0) + self.kv_rank
        biases = self.bias * ((self.q_rank or 0) + self.kv_rank + self.rope_dim + self.hidden)
        return self.matrix_params + norms + biases

    @property
    def kv_size(self) -> int:
        return self.kv_rank + self.rope_dim

    @property
    def decode_flops(self) -> int:
        return 2 * self.heads * (2 * self.kv_rank + self.rope_dim)

    @property
    def prefill_flops(self) -> int:
        return 2 * self.heads * (self.nope_dim + self.rope_dim + self.v_dim)

    @property
    def expand_flops(self) -> int:
        return 2 * self.kv_rank * self.heads * (self.nope_dim + self.v_dim)


@dataclass(frozen=True, slots=True)
class MLP:
    """A gated feed-forward network: three matrices."""

    hidden: int
    inner: int
    bias: bool = False

    @property
    def active_matrix_params(self) -> int:
        return 3 * self.hidden * self.inner

    @property
    def params(self) -> int:
        return self.active_matrix_params + self.bias * (2 * self.inner + self.hidden)


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of gated experts: a router picks `active` of `count` for each token; shared experts serve them all."""

    hidden: int
    inner: int
    count: int
    active: int
    shared_inner: int = 0
    shared_gate: bool = False

    @property
    def expert_params(self) -> int:
        """Parameters of one expert."""
        return 3 * self.hidden * self.inner

    @property
    def _always(self) -> int:
        """Parameters of the router and the shared experts."""
        return self.hidden * (self.count + self.shared_gate + 3 * self.shared_inner)

    @property
    def active_matrix_params(self) -> int:
        return self.active * self.expert_params + self._always

    @property
    def params(self) -> int:
        return self.count * self.expert_params + self._always

    def hit(self, tokens: float) -> float:
        """The expected number of experts that a pass of that many tokens reads: count (1 - (1 - active/count)^tokens).

        A token misses a given expert with probability 1 - active/count. This assumes that tokens choose independently
        and all experts equally often. The choices of real routers are correlated within a text, and hit fewer.
        """
        missed: float = (1 - self.active / self.count) ** tokens
        return self.count * (1 - missed)


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer."""

    attention: Attention | LatentAttention
    mlp: MLP | Experts
    norm_params: int

    @property
    def params(self) -> int:
        return self.attention.params + self.mlp.params + self.norm_params

    @property
    def matrix_params(self) -> int:
        """Parameters of the matrices that each token is multiplied with."""
        return self.attention.matrix_params + self.mlp.active_matrix_params


@dataclass(frozen=True, slots=True)
class Head:
    """The last matrices: from a hidden state to logits, or to the scores of a reward model."""

    matrix_params: int
    params: int
    """Its own parameters: none for a head that is tied to the embedding."""
    read: int
    """Parameters read in a pass."""


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer's sizes, dtypes and attention: all that its cost depends on.

    `streams` is the number of parallel streams of ParScale (2505.10475): each token goes through the layers once for
    each, with `prefix` trained tokens before the KV cache of each stream, and a small network weighs their outputs. Any
    model can be priced with it: `dataclasses.replace(spec, streams=4, prefix=48)`.
    """

    hidden: int
    vocab: int
    layers: tuple[tuple[Layer, int], ...]
    """Each kind of layer with its number of layers."""
    head: Head
    dtype: str = "bfloat16"
    """Dtype of the arithmetic; weights and KV cache may be stored in fewer bytes."""
    weight_bytes: float = 2
    kv_bytes: float = 2
    streams: int = 1
    prefix: int = 0
    decode: Decode = field(default_factory=Dense)
    """The attention that its engine uses in decode steps."""

    @cached_property
    def embedding_params(self) -> int:
        return self.vocab * self.hidden

    @cached_property
    def stream_params(self) -> int:
        """ParScale's parameters: prefixes of keys and values, and Linear(P h, h), Linear(h, P) to weigh the streams."""
        if self.streams == 1:
            return 0
        return self.streams * self.prefix * self.kv_size + self.aggregation_params

    @cached_property
    def aggregation_params(self) -> int:
        return self.aggregation_matrix_params + self.hidden + self.streams if self.streams > 1 else 0

    @cached_property
    def aggregation_matrix_params(self) -> int:
        return self.streams * self.hidden * (self.hidden + 1) if self.streams > 1 else 0

    @cached_property
    def body_params(self) -> int:
        """Parameters of all layers and the last norm."""
        return sum(layer.params * count for layer, count in self.layers) + self.hidden

    @cached_property
    def params(self) -> int:
        """All parameters; tied ones count once."""
        return self.embedding_params + self.body_params + self.head.params + self.stream_params

    @cached_property
    def active_params(self) -> int:
        """Parameters that one token uses: `params` without the experts that it is not sent to."""
        idle = sum(
            (layer.mlp.params - layer.mlp.active_matrix_params) * count
            for layer, count in self.layers
            if isinstance(layer.mlp, Experts)
        )
        return self.params - idle

    @cached_property
    def matrix_params(self) -> int:
        """Parameters of the layers' matrices that each token is multiplied with, without head and embedding."""
        return sum(layer.matrix_params * count for layer, count in self.layers)

    @cached_property
    def kv_size(self) -> int:
        """Numbers that one token of one stream adds to the KV cache, over all layers."""
        return sum(layer.attention.kv_size * count for layer, count in self.layers)

    @cached_property
    def attentions(self) -> tuple[tuple[Attention | LatentAttention, int], ...]:
        """Each kind of attention with its number of layers."""
        counts: Counter[Attention | LatentAttention] = Counter()
        for layer, count in self.layers:
            counts[layer.attention] += count
        return tuple(counts.items())

    @cached_property
    def _experts(self) -> tuple[tuple[Experts, int], ...]:
        """Each kind of mixture with the parameters of one expert of each of its layers, summed."""
        kinds = ((layer.mlp, layers) for layer, layers in self.layers if isinstance(layer.mlp, Experts))
        return tuple((mlp, mlp.expert_params * layers) for mlp, layers in kinds)

    @cached_property
    def _always_read(self) -> int:
        return self.body_params - sum(mlp.count * size for mlp, size in self._experts)

    def body_read(self, tokens: float) -> float:
        """The layers' parameters that a pass of that many tokens (of all streams) reads: of experts only those hit."""
        read: float = self._always_read
        for experts, size in self._experts:
            read += experts.hit(tokens) * size
        return read
