"""FLOPs and bytes of prefill and decode, in closed form.

    request_cost(spec, prefill=200, cached=0, generated=4000, serving=Serving(batch=32))

The formulas count the matrix products, with two FLOPs for a multiplication and an addition, and the bytes of weights
and KV cache that move between memory and chip. A token attends to those before it and to itself: `context` cached
tokens make `context + 1` keys. They do not count norms, activation functions, rotary embeddings, softmax and sampling
(a percent or two of the FLOPs); memory traffic of activations and logits; communication between devices; the split of a
long prefill into chunks; speculative decoding, which spends FLOPs on drafts to save passes.
"""

import functools
import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from infer.cost.attention import BlockTopK, Dense, TopK
from infer.cost.model import BYTES, Attention, LatentAttention, ModelSpec
from infer.errors import UserError


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs and bytes moved."""

    flops: float = 0
    bytes: float = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, factor: float) -> "Work":
        return Work(self.flops * factor, self.bytes * factor)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of some passes, by cause."""

    weights: Work = Work()
    """The matrices of the layers, and the rows of the embedding."""
    kv: Work = Work()
    """Attention: queries with keys, probabilities with values, and the traffic of the KV cache."""
    logits: Work = Work()
    """The head."""
    passes: float = 0
    """Forward passes; a pass that others share counts as this request's share."""

    @property
    def flops(self) -> float:
        return self.weights.flops + self.kv.flops + self.logits.flops

    @property
    def bytes(self) -> float:
        return self.weights.bytes + self.kv.bytes + self.logits.bytes

    def eflops(self, intensity: float) -> float:
        """FLOPs + intensity x bytes (Kinetics, 2506.05333, section 2); the intensity is FLOPs per byte."""
        return self.flops + intensity * self.bytes

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.weights + other.weights, self.kv + other.kv, self.logits + other.logits, self.passes + other.passes
        )

    def __mul__(self, factor: float) -> "Cost":
        return Cost(self.weights * factor, self.kv * factor, self.logits * factor, self.passes * factor)


@dataclass(frozen=True, slots=True)
class RequestCost:
    """The cost of a request, separately for prefill and decode. Costs are added with `+`."""

    prefill: Cost = Cost()
    decode: Cost = Cost()

    @property
    def flops(self) -> float:
        return self.prefill.flops + self.decode.flops

    @property
    def bytes(self) -> float:
        return self.prefill.bytes + self.decode.bytes

    def eflops(self, intensity: float) -> float:
        """FLOPs + intensity x bytes."""
        return self.flops + intensity * self.bytes

    def __add__(self, other: "RequestCost") -> "RequestCost":
        return RequestCost(self.prefill + other.prefill, self.decode + other.decode)

    def __mul__(self, factor: float) -> "RequestCost":
        return RequestCost(self.prefill * factor, self.decode * factor)


@dataclass(frozen=True, slots=True)
class Serving:
    """The requests that run together with one request, which determine its share of a pass.

    `batch` requests like it go through each pass together and share the reading of the weights. `sharers` of them share
    the KV blocks of their prompt, which a decode step reads once for all (cascade attention). By default, 1, each
    request reads them for itself, as the usual kernels do even if the blocks are stored once.
    """

    batch: float = 1
    sharers: float = 1


ALONE = Serving()


def prefill_cost(
    spec: ModelSpec,
    tokens: int,
    cached: int = 0,
    *,
    passes: int = 1,
    logits: int = 1,
    serving: Serving = ALONE,
    causal: bool = True,
) -> Cost:
    """A pass over `tokens` of a prompt after `cached` ones, with `logits` positions through the head.

    With `passes` more such passes follow, each over `tokens` further tokens: a solution that is scored step by step.
    Each token attends to those before it and itself. `causal` counts only these pairs, as for kernels that skip masked
    ones; False counts every query with every key of the pass, as for a full masked product (torch.utils.flop_counter).
    Cached keys and values are read once in a pass, and the new ones written.
    """
    if tokens == 0 or passes == 0:
        return Cost()
    total = tokens * passes
    flops: float = 0
    numbers: float = 0
    for attention, layers in spec.attentions:
        reach = _sum_cached(attention, cached, tokens, passes)
        rectangle = tokens * (reach + total)
        if isinstance(attention, LatentAttention) and (index := attention.indexer):
            scored = _sum_min(cached + 1, total, None) if causal else rectangle
            pairs = _sum_min(cached + 1, total, index.topk)
            flops += layers * (index.score_flops * scored + attention.decode_flops * (pairs + total * spec.prefix))
            numbers += layers * index.dim * reach
        else:
            pairs = (_sum_seen(attention, cached + 1, total) if causal else rectangle) + total * spec.prefix
            flops += layers * (attention.prefill_flops * pairs + attention.expand_flops * reach)
        numbers += layers * (attention.kv_size * (passes * spec.prefix + reach) + attention.cache_size * total)
    for recurrence, layers in spec.recurrences:
        flops += layers * recurrence.flops * total
        numbers += layers * recurrence.state * (2 * passes - (cached == 0))  # a first pass only writes it
    kv = Work(spec.streams * flops, spec.streams * numbers * spec.kv_bytes)
    return _with_weights(
        spec, kv, tokens=total, passes=passes, tokens_in_pass=tokens, logits=logits * passes, serving=serving
    )


def decode_cost(
    spec: ModelSpec, context: int, steps: int, *, serving: Serving = ALONE, shared: int | None = None
) -> Cost:
    """`steps` passes of one token each, the first after `context` cached tokens.

    `serving.sharers` requests share the first `shared` tokens (default: all of `context`). Each step reads the keys and
    values that it attends to, and writes those of the new token. It reads and writes the state of a recurrence. Raises
    UserError for sparse attention over latents.
    """
    if steps == 0:
        return Cost()
    if shared is None:
        shared = context
    first = context + 1
    always = steps * spec.prefix
    flops: float = 0
    numbers: float = 0
    for attention, layers in spec.attentions:
        if attention.window is None and not isinstance(spec.decode, Dense):
            pair_flops, read = _sparse(attention, first, steps, shared, spec.decode, serving.sharers)
        elif isinstance(attention, LatentAttention) and (index := attention.indexer):
            seen, scored = _sum_min(first, steps, index.topk), _sum_min(first, steps, None)
            pair_flops = attention.decode_flops * seen + index.score_flops * scored
            scanned = scored - shared * steps + shared * steps / serving.sharers
            read = attention.kv_size * seen + index.dim * scanned
        else:
            seen = _sum_seen(attention, first, steps)
            common = 0 if serving.sharers == 1 else _sum_common(attention, first, steps, shared)
            pair_flops = attention.decode_flops * seen
            read = attention.kv_size * (seen - common + common / serving.sharers if common else seen)
        flops += layers * (pair_flops + attention.decode_flops * always)
        numbers += layers * (read + attention.kv_size * always)
    for recurrence, layers in spec.recurrences:
        flops += layers * recurrence.flops * steps
        numbers += layers * recurrence.state * (2 * steps - (context == 0))
    kv = Work(spec.streams * flops, spec.streams * numbers * spec.kv_bytes)
    return _with_weights(spec, kv, tokens=steps, passes=steps, tokens_in_pass=1, logits=steps, serving=serving)


@functools.lru_cache(maxsize=1 << 12)  # budgets ask for the same shapes many times
def request_cost(
    spec: ModelSpec, prefill: int, cached: int, generated: int, *, serving: Serving = ALONE
) -> RequestCost:
    """The cost of one request: `prefill` prompt tokens computed after `cached` ones, then `generated` tokens sampled.

    The prefill gives the first token, each decode step one more; the last token is only sampled, not computed. A
    request that generates nothing (to a reward model) goes through the head once. It is a closed form: the time of this
    call does not grow with the number of tokens.
    """
    return RequestCost(
        prefill_cost(spec, prefill, cached, serving=serving),
        decode_cost(spec, prefill + cached, max(generated - 1, 0), serving=serving),
    )


def affordable_tokens(
    spec: ModelSpec,
    amount: float,
    measure: Callable[[RequestCost], float],
    *,
    prefill: int,
    cached: int,
    most: int,
    serving: Serving = ALONE,
) -> int:
    """The largest number of tokens up to `most` that a request can generate for `amount`; 0 if it can't generate one.

    The result n is exact: measure(request_cost(n)) <= amount < measure(request_cost(n + 1)). `measure` turns a cost
    into the amount's unit and must not fall as costs grow: `lambda cost: cost.flops`, or a hardware's eFLOPs, seconds
    or dollars.
    """

    def price(generated: int) -> float:
        return measure(request_cost(spec, prefill, cached, generated, serving=serving))

    if price(most) <= amount:  # the usual case: the budget is not nearly spent
        return max(most, 0)
    return bisect_right(range(1, most), amount, key=price)


def _with_weights(
    spec: ModelSpec, kv: Work, *, tokens: int, passes: int, tokens_in_pass: int, logits: int, serving: Serving
) -> Cost:
    """Adds the costs other than attention. The network that weighs a ParScale model's streams counts as head."""
    in_pass = tokens_in_pass * serving.batch * spec.streams
    share = passes / serving.batch if serving.batch != 1 else passes
    size = BYTES[spec.dtype]
    read = spec.body_bytes(in_pass) * share + tokens * spec.embedding.row * size
    head = spec.head.read + spec.aggregation_params
    return Cost(
        Work(2 * spec.matrix_params * spec.streams * tokens, read),
        kv,
        Work(2 * (spec.head.matrix_params + spec.aggregation_matrix_params) * logits, head * share * size),
        share,
    )


def _sparse(
    attention: Attention | LatentAttention,
    first: int,
    steps: int,
    shared: int,
    sparse: TopK | BlockTopK,
    sharers: float,
) -> tuple[float, float]:
    """FLOPs, and numbers read, of sparse attention in one layer.

    Each request reads the chosen tokens for itself; the scan that chooses them can be shared.
    """
    if isinstance(attention, LatentAttention):
        raise UserError("sparse attention over latents (multi-head latent attention) is not modelled: leave it dense")
    keys = attention.kv_size // 2
    match sparse:
        case TopK(k, free_choice=True):
            seen = _sum_min(first, steps, k)
            return attention.decode_flops * seen, attention.kv_size * seen
        case TopK(k):
            seen = _sum_min(first, steps, k)
            scanned = _sum_min(first, steps, None)
            in_common = shared * steps
            value_flops = attention.decode_flops - attention.score_flops
            flops = attention.score_flops * scanned + value_flops * seen
            return flops, keys * (scanned - in_common + in_common / sharers + seen)
        case BlockTopK(k, block, local):
            seen = _sum_min(first, steps, local + k * block)
            scanned = _sum_ceil(first, steps, block)
            in_common = shared // block * steps
            flops = attention.decode_flops * seen + attention.score_flops * scanned
            return flops, attention.kv_size * seen + keys * (scanned - in_common + in_common / sharers)


def _sum_seen(attention: Attention | LatentAttention, first: int, count: int) -> int:
    """Tokens that `count` tokens attend to, summed; the first of them is the `first` in its sequence, from 1."""
    if not (attention.chunked and attention.window):
        return _sum_min(first, count, attention.window)
    chunk = attention.window

    def up_to(last: int) -> int:
        whole, rest = divmod(last, chunk)
        return (whole * chunk * (chunk + 1) + rest * (rest + 1)) // 2

    return up_to(first + count - 1) - up_to(first - 1)


def _sum_common(attention: Attention | LatentAttention, first: int, count: int, shared: int) -> int:
    """Of the tokens that `_sum_seen` sums, those among the first `shared` of the sequence."""
    if not (attention.chunked and attention.window):
        return _sum_min(first, count, attention.window) - _sum_min(first - shared, count, attention.window)
    begun = shared % attention.window  # shared tokens of the chunk that the sequence is in when they end
    return begun * min(max(shared - begun + attention.window - first + 1, 0), count)


def _sum_cached(attention: Attention | LatentAttention, cached: int, tokens: int, passes: int) -> int:
    """Cached tokens in reach of a pass's tokens, summed over successive passes of `tokens` after `cached`."""
    window = attention.window
    if window is None:
        return passes * cached + tokens * (passes * (passes - 1) // 2)
    if attention.chunked:
        period = window // math.gcd(tokens, window)  # after which the position in a chunk comes again
        rounds, rest = divmod(passes, period)
        reach = [(cached + index * tokens) % window for index in range(min(period, passes))]
        return rounds * sum(reach) + sum(reach[:rest])
    below = min(passes, max(0, -((cached - window + 1) // tokens)))  # passes that start before the window is full
    return below * cached + tokens * (below * (below - 1) // 2) + (passes - below) * (window - 1)


def _sum_min(first: int, count: int, cap: int | None) -> int:
    """Sum of min(t, cap) over `count` numbers t from `first` on."""
    if cap is None:
        return count * (2 * first + count - 1) // 2
    below = min(max(cap - first + 1, 0), count)
    return below * (2 * first + below - 1) // 2 + (count - below) * cap


def _sum_ceil(first: int, count: int, block: int) -> int:
    """Sum of ceil(t / block) over `count` numbers t from `first` on."""

    def up_to(last: int) -> int:
        whole, rest = divmod(last, block)
        return block * whole * (whole + 1) // 2 + rest * (whole + 1)

    return up_to(first + count - 1) - up_to(first - 1)
