"""The sizes of a model that its cost depends on. `infer.cost.config` reads them from a `config.json`.

Parameters are counted matrix by matrix; the sum equals that of the loaded model. Equal layers are stored once, with
their number. A layer has any number of mixers (attention over a cache, or a recurrence with a state) and of mixtures of
experts; all its other matrices, such as those of an MLP, are `Weights`.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from infer.cost.attention import Decode, Dense

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1, "int4": 0.5}
"""Bytes of one number, by dtype."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Numbers of parameters. They are added with `+`, and multiplied by a number of equal parts."""

    matrices: int = 0
    """Of matrices that each token is multiplied with."""
    others: int = 0
    """Biases, norms and the like, which cost next to no FLOPs."""

    @property
    def params(self) -> int:
        return self.matrices + self.others

    def __add__(self, other: "Weights") -> "Weights":
        return Weights(self.matrices + other.matrices, self.others + other.others)

    def __mul__(self, count: int) -> "Weights":
        return Weights(self.matrices * count, self.others * count)


def linear(inputs: int, outputs: int, bias: bool = False) -> Weights:
    """The weights of one matrix, and of its bias."""
    return Weights(inputs * outputs, outputs * bias)


@dataclass(frozen=True, slots=True)
class Attention:
    """Grouped-query attention: multi-head if `kv_heads` is `heads`, multi-query if it is 1."""

    weights: Weights
    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    """Tokens that a token attends to, including itself; None: all before it."""
    chunked: bool = False
    """Windows do not slide: a token attends to those of its chunk of `window` tokens (Llama 4)."""
    stored: bool = True
    """False: it attends to the keys and values that another layer has stored."""

    @property
    def kv_size(self) -> int:
        """Numbers of one token's keys and values."""
        return self.kv_heads * (self.key_dim + self.value_dim)

    @property
    def cache_size(self) -> int:
        """Numbers that one token adds to the cache."""
        return self.kv_size if self.stored else 0

    @property
    def score_flops(self) -> int:
        """FLOPs of one query's scores for one key: q k, in all heads."""
        return 2 * self.heads * self.key_dim

    @property
    def decode_flops(self) -> int:
        """FLOPs of one query with one key and its value: q k and p v, in all heads."""
        return 2 * self.heads * (self.key_dim + self.value_dim)

    @property
    def prefill_flops(self) -> int:
        return self.decode_flops

    @property
    def expand_flops(self) -> int:
        """FLOPs that each cached token costs again in a later prefill."""
        return 0


@dataclass(frozen=True, slots=True)
class Indexer:
    """Chooses the tokens that latent attention attends to, at most `topk` (DeepSeek-V3.2, 2512.02556, section 2.1).

    It scores all tokens with heads of its own, which share one key for each token. Without heads it takes the choice of
    an earlier layer.
    """

    heads: int
    dim: int
    topk: int

    @property
    def score_flops(self) -> int:
        """FLOPs of one query's scores for one key, in all heads, and of their weighted sum."""
        return 2 * self.heads * (self.dim + 1)


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, 2405.04434, section 2.1): the cache holds one latent for all heads.

    A prefill expands latents into keys and values of all heads, and expands those of the cached prefix again. A decode
    step instead multiplies the expansion into query and output ("absorbed") and attends to the latents themselves, as
    in vLLM. With an indexer a prefill does so too, since each token attends to others.
    """

    weights: Weights
    """The matrices that expand latents included: the tokens of a pass go through them once, absorbed or not."""
    heads: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    indexer: Indexer | None = None
    window: None = None
    chunked: bool = False

    @property
    def kv_size(self) -> int:
        return self.kv_rank + self.rope_dim

    @property
    def cache_size(self) -> int:
        return self.kv_size + (self.indexer.dim if self.indexer else 0)

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
class Recurrence:
    """Linear attention, a state space or a convolution: what it knows of earlier tokens has a constant size."""

    weights: Weights
    """A convolution over each channel counts as a matrix: each token is multiplied with all of it."""
    state: int
    """Numbers that a sequence keeps between two passes, the inputs that a convolution still needs included."""
    flops: int = 0
    """FLOPs of one token with the state: to update and to read it, token by token."""


Mixer = Attention | LatentAttention | Recurrence


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: `active` of `count` for each token. Router and shared experts belong to the layer."""

    expert: Weights
    """Of one expert."""
    count: int
    active: int

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

    weights: Weights
    """All but mixers and experts: MLPs, shared experts, routers, norms."""
    mixers: tuple[Mixer, ...] = ()
    experts: tuple[Experts, ...] = ()

    @property
    def params(self) -> int:
        mixers = sum(mixer.weights.params for mixer in self.mixers)
        return self.weights.params + mixers + sum(e.count * e.expert.params for e in self.experts)

    @property
    def matrix_params(self) -> int:
        """Parameters of the matrices that each token is multiplied with."""
        mixers = sum(mixer.weights.matrices for mixer in self.mixers)
        return self.weights.matrices + mixers + sum(e.active * e.expert.matrices for e in self.experts)


@dataclass(frozen=True, slots=True)
class Head:
    """The last matrices: from a hidden state to logits, or to the scores of a reward model."""

    matrix_params: int
    params: int
    """Its own parameters: none for a head that is tied to the embedding."""
    read: int
    """Parameters read in a pass."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """Tables that each token is looked up in: of words, of positions, ..."""

    params: int
    row: int
    """Numbers that one token reads."""


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only language model's sizes, dtypes and attention: all that its cost depends on.

    `streams` is the number of parallel streams of ParScale (2505.10475): each token goes through the layers once for
    each, with `prefix` trained tokens before the KV cache of each stream, and a small network weighs their outputs. Any
    model can be priced with it: `dataclasses.replace(spec, streams=4, prefix=48)`.
    """

    hidden: int
    vocab: int
    embedding: Embedding
    layers: tuple[tuple[Layer, int], ...]
    """Each kind of layer with its number of layers."""
    head: Head
    outside: Weights = Weights()
    """Of the last norm, and of projections before and after the layers."""
    dtype: str = "bfloat16"
    """Dtype of the arithmetic; weights and KV cache may be stored in fewer bytes."""
    matrix_dtype: str | None = None
    """Dtype of the products with the layers' matrices, of a model stored in 8 bits; None: `dtype`."""
    weight_bytes: float = 2
    """Bytes of a parameter of the layers. Those of embedding and head are of `dtype`, in a quantized model too."""
    expert_bytes: float | None = None
    """Bytes of a parameter of an expert, if it differs."""
    kv_bytes: float = 2
    streams: int = 1
    prefix: int = 0
    decode: Decode = field(default_factory=Dense)
    """The attention that its engine uses in decode steps."""

    def __hash__(self) -> int:
        """Of some sizes only: for each request a budget looks up costs by the spec. Equality compares all fields."""
        return hash((self.hidden, self.vocab, self.params, self.weight_bytes))

    @cached_property
    def embedding_params(self) -> int:
        return self.embedding.params

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
        """Parameters of all that is neither embedding nor head."""
        return sum(layer.params * count for layer, count in self.layers) + self.outside.params

    @cached_property
    def params(self) -> int:
        """All parameters; tied ones count once."""
        return self.embedding_params + self.body_params + self.head.params + self.stream_params

    @cached_property
    def active_params(self) -> int:
        """Parameters that one token uses: `params` without the experts that it is not sent to."""
        return self.params - sum((e.count - e.active) * e.expert.params * layers for e, layers in self.experts)

    @cached_property
    def matrix_params(self) -> int:
        """Parameters of the matrices that each token is multiplied with, without head and embedding."""
        return sum(layer.matrix_params * count for layer, count in self.layers) + self.outside.matrices

    @cached_property
    def weight_memory(self) -> float:
        """Bytes of all weights."""
        outside = self.embedding_params + self.head.params + self.stream_params
        return self.body_bytes(math.inf) + outside * BYTES[self.dtype]

    @cached_property
    def kv_size(self) -> int:
        """Numbers that one token of one stream adds to the KV cache, over all layers."""
        return sum(mixer.cache_size * layers for mixer, layers in self.attentions)

    @cached_property
    def state_size(self) -> int:
        """Numbers that recurrences keep for a sequence of one stream, whatever its length."""
        return sum(mixer.state * layers for mixer, layers in self.recurrences)

    def cache_bytes(self, tokens: int, prompt: int = 0, samples: int = 1) -> float:
        """Bytes that `samples` sequences keep: each its own last `tokens`, after a `prompt` that all have in common.

        Layers with a window keep the tokens within it alone, recurrences their state.
        """
        numbers = samples * self.state_size
        for mixer, layers in self.attentions:
            own = tokens if mixer.window is None else min(tokens, mixer.window)
            common = prompt if mixer.window is None else min(prompt, mixer.window - own)
            numbers += layers * mixer.cache_size * (samples * own + common)
        return numbers * self.streams * self.kv_bytes

    @cached_property
    def mixers(self) -> tuple[tuple[Mixer, int], ...]:
        """Each kind of mixer with its number of layers."""
        counts: Counter[Mixer] = Counter()
        for layer, count in self.layers:
            for mixer in layer.mixers:
                counts[mixer] += count
        return tuple(counts.items())

    @cached_property
    def attentions(self) -> tuple[tuple[Attention | LatentAttention, int], ...]:
        """Each kind of attention with its number of layers."""
        return tuple((mixer, count) for mixer, count in self.mixers if not isinstance(mixer, Recurrence))

    @cached_property
    def recurrences(self) -> tuple[tuple[Recurrence, int], ...]:
        """Each kind of recurrence with its number of layers."""
        return tuple((mixer, count) for mixer, count in self.mixers if isinstance(mixer, Recurrence))

    @cached_property
    def experts(self) -> tuple[tuple[Experts, int], ...]:
        """Each kind of mixture of experts with its number of layers."""
        return tuple((experts, count) for layer, count in self.layers for experts in layer.experts)

    @cached_property
    def _experts_read(self) -> tuple[tuple[Experts, float], ...]:
        """Each kind of mixture with the bytes of one expert of each of its layers, summed."""
        size = self.weight_bytes if self.expert_bytes is None else self.expert_bytes
        return tuple((e, e.expert.params * layers * size) for e, layers in self.experts)

    @cached_property
    def _always_read(self) -> float:
        return (self.body_params - sum(e.count * e.expert.params * n for e, n in self.experts)) * self.weight_bytes

    def body_bytes(self, tokens: float) -> float:
        """The bytes of weights that a pass of that many tokens (of all streams) reads in the layers.

        Of experts only those that are hit.
        """
        read = self._always_read
        for experts, size in self._experts_read:
            read += experts.hit(tokens) * size
        return read
