"""Estimates the cost of a strategy on one problem for `infer cost`, without running it."""

from dataclasses import dataclass

from infer.cost.formulas import RequestCost, Serving, prefill_cost, request_cost
from infer.cost.hardware import Hardware
from infer.cost.model import ModelSpec
from infer.cost.runtime import Runtime

STEP_TOKENS = 50
"""Tokens of a step, where nothing says how long steps are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an estimate."""

    part: str
    tokens: int
    """Token positions computed or sampled."""
    flops: float
    bytes: float
    eflops: float
    seconds: float
    """Device time at the roofline, a lower bound for any engine."""
    dollars: float | None
    """None where the hardware has no price."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of solving one problem."""

    rows: list[Row]
    """Generator prefill, generator decode, verifier (if there is one), total."""
    memory: float
    """Bytes of all weights, and of the caches of the trajectories that are kept, at their full length: of layers with a
    window only the tokens within it, of recurrences their states."""


def estimate(
    spec: ModelSpec,
    hardware: Hardware,
    *,
    samples: int,
    tokens: int,
    prompt: int = 256,
    branches: int = 1,
    step: int | None = None,
    verifier: ModelSpec | None = None,
    serving: Serving | None = None,
) -> Estimate:
    """The cost of `samples` trajectories of `tokens` tokens after one prompt, decoded together.

    The prompt is computed once; the other samples read it from the prefix cache. Best-of-N and majority voting are
    `samples=n`, greedy decoding is `samples=1`. A search that keeps n trajectories and samples m next steps of each
    (beam search, A*) is `samples=n, branches=m`: each step costs m times as much. The verifier, a process reward model,
    reads every generated token once, after its own cached prefix: a whole trajectory in one pass, or with `step` that
    many tokens in each pass, as in a search that scores each step. `serving` is by default one batch of all branches.
    Raises UserError for a dtype without a peak rate on the hardware.
    """
    batch = samples * branches
    serving = serving or Serving(batch=batch)
    # one branch of each sample and step is kept, so all have contexts of the same lengths
    branch = request_cost(spec, 0, prompt, tokens + 1, serving=serving)
    rows = [
        _row("generator prefill", prompt, request_cost(spec, prompt, 0, 1), spec, hardware),
        _row("generator decode", batch * tokens, branch * batch, spec, hardware),
    ]
    memory = spec.weight_memory + spec.cache_bytes(tokens, prompt, samples)
    if verifier is not None:
        step = step or max(tokens, 1)
        passes, rest = divmod(tokens, step)
        together = Serving(batch=batch)
        scored = prefill_cost(verifier, step, prompt, passes=passes, serving=together)
        scored += prefill_cost(verifier, rest, prompt + tokens - rest, serving=together)
        cost = RequestCost(prefill_cost(verifier, prompt) + scored * batch)
        rows.append(_row("verifier", prompt + batch * tokens, cost, verifier, hardware))
        memory += verifier.weight_memory
    return Estimate([*rows, _total(rows)], memory)


def _row(part: str, tokens: int, cost: RequestCost, spec: ModelSpec, hardware: Hardware) -> Row:
    runtime = Runtime.of(spec, hardware)
    dollars = None if hardware.price is None else runtime.dollars(cost)
    return Row(part, tokens, cost.flops, cost.bytes, runtime.eflops(cost), runtime.seconds(cost), dollars)


def _total(rows: list[Row]) -> Row:
    prices = [row.dollars for row in rows if row.dollars is not None]
    return Row(
        "total",
        sum(row.tokens for row in rows),
        sum(row.flops for row in rows),
        sum(row.bytes for row in rows),
        sum(row.eflops for row in rows),
        sum(row.seconds for row in rows),
        sum(prices) if prices else None,
    )
