"""The cost model of Kinetics (2506.05333) as published, to compare with ours.

Equation 4 of the paper, and the authors' script `cost_model/utils.py`, count for `trials` samples of g tokens after a
prompt of c tokens, with n parameters, H query heads, K key-value heads of size d (times layers):

    compute = trials (2 n g + 2 (2c + g) g H d)
    memory  = 2 (2c + g trials) g K d                                     bytes; the prompt's cache is read once for all
    eFLOPs  = compute + 562.5 memory

The two sparse formulas, where a step attends to at most B tokens:

    top-k        s = B g + max(0, B - c)^2 / 2                            the choice costs nothing
    block top-k  s = B g - max(0, B - c)^2 / 2                            B = local + block x blocks
    compute = trials (2 n g + 4 s H d)        memory = 4 trials s K d
    block top-k adds a choice: trials floor((2c + g) / block) g H d, and floor((2c + g trials) / block) g K d bytes

562.5 FLOPs a byte is NVIDIA's B200 at 4.5 PFLOP/s over 8 TB/s. 4.5 PFLOP/s is its dense FP8 rate, or its BF16 rate with
sparsity. But the cache is counted at two bytes a number, as in BF16, whose dense rate gives 281.25.

Differences from `formulas`:
- Weights are never read (the script has the line commented out). At small batches they are most of the traffic.
- A step attends to all of a cache of less than B tokens, so s is Bg minus the corner (B - c)^2 / 2: the sign in the
  top-k formula is wrong (in the published results in both). Where a generation ends before the cache holds B tokens,
  the corner is cut off, and neither formula is right.
- Prefill is not counted. Embedding and head are multiplied at every token, as parts of n; where the head is tied, as in
  the small models, the script's n counts it twice (0.752 billion for Qwen3-0.6B). Sums are integrals.
"""

from dataclasses import dataclass

from infer.cost.model import Attention, ModelSpec
from infer.errors import UserError

INTENSITY = 562.5


@dataclass(frozen=True, slots=True)
class Published:
    """eFLOPs of all samples: `compute` is FLOPs, `memory` is bytes times the intensity."""

    compute: float
    memory: float

    @property
    def eflops(self) -> float:
        return self.compute + self.memory


def dense(
    spec: ModelSpec,
    context: int,
    generated: int,
    trials: int = 1,
    *,
    params: float | None = None,
    intensity: float = INTENSITY,
) -> Published:
    """`dense_cost` of the script, which is equation 4. `params` is by default the model's own count."""
    query, key_value = _sizes(spec)
    linear = 2 * (params or spec.params) * generated
    return Published(
        trials * (linear + 2 * (2 * context + generated) * generated * query),
        intensity * 2 * (2 * context + generated * trials) * generated * key_value,
    )


def topk(
    spec: ModelSpec,
    context: int,
    generated: int,
    k: int,
    trials: int = 1,
    *,
    params: float | None = None,
    intensity: float = INTENSITY,
) -> Published:
    """`zero_overhead_sparse_cost` of the script, with its wrong sign."""
    return _sparse(spec, generated, k * generated + max(0, k - context) ** 2 / 2, trials, params, intensity)


def block_topk(
    spec: ModelSpec,
    context: int,
    generated: int,
    k: int,
    block: int,
    local: int = 0,
    trials: int = 1,
    *,
    params: float | None = None,
    intensity: float = INTENSITY,
) -> Published:
    """`block_sparse_cost` of the script: `k` blocks of `block` tokens, and the last `local` tokens."""
    query, key_value = _sizes(spec)
    budget = local + k * block
    pairs = budget * generated - max(0, budget - context) ** 2 / 2
    attended = _sparse(spec, generated, pairs, trials, params, intensity)
    scored = (2 * context + generated) // block * generated * query
    read = (2 * context + generated * trials) // block * generated * key_value
    return Published(attended.compute + trials * scored, attended.memory + intensity * read)


def _sparse(
    spec: ModelSpec, generated: int, pairs: float, trials: int, params: float | None, intensity: float
) -> Published:
    query, key_value = _sizes(spec)
    linear = 2 * (params or spec.params) * generated
    return Published(trials * (linear + 4 * pairs * query), intensity * trials * 4 * pairs * key_value)


def _sizes(spec: ModelSpec) -> tuple[int, int]:
    """Sizes of one token's queries and keys, summed over all layers. Raises UserError for other attention."""
    query = key_value = 0
    for mixer, layers in spec.mixers:
        if not isinstance(mixer, Attention) or mixer.window is not None or mixer.key_dim != mixer.value_dim:
            raise UserError("Kinetics' published formulas are for full grouped-query attention only")
        query += layers * mixer.heads * mixer.key_dim
        key_value += layers * mixer.kv_heads * mixer.key_dim
    return query, key_value
