"""Throughput of every strategy against one bare vLLM call, in one process and on one engine, turn by turn.

    python benchmarks/strategies.py nano-s
    python benchmarks/strategies.py DIR --strategies beam --step-tokens 40 --max-tokens 120 --repeats 2
    python benchmarks/strategies.py nano-s --prm nano-prm-s

Each strategy solves `--problems` problems at once, within a budget of n x max-tokens generated tokens each. A hash that
costs nothing stands in for the reward model. The bare call does what `vllm.LLM.generate` does: it adds all requests and
steps until none is left. It has as many sequences for each problem as the strategy has in flight (its width), all of
one length, and as many tokens in all. So no search can have a fuller batch. Ours seeds every sample; the bare call does
not. Prints tokens/s of both and their ratio, as median and range over the turns. Then prints where our time goes, in
shares of it:

- barriers: the time that a fuller batch would have saved, with the share of batch slots that idled. A slot is one of
  the width sequences of a problem in flight. tail: the time saved if `--problems` problems had always been in flight.
  Both are estimated as the fixed cost of a step times the number of excess steps.
- re-prefill: prompt tokens that were computed although an earlier request had computed the same prefix (parts of cache
  blocks, or evicted ones), and the cost of a prefilled token. Both costs are fitted to the model time of all steps.
- admission: time in the engine but not in the model (requests in, scheduling, outputs), and that of the bare call.
- ours: time outside the engine: search, strategy, event loop.

With `--prm` the reward model is real. Strategies that need one show its share of the time, and how much of that could
overlap, since in one process the two models take turns. Then `beam` and `astar` search again without the verifier's
prefix cache. Prints the tokens computed with it and without, against those of the final tree (each token once), and the
seconds of both. "Plus rounding" is the tree if only whole cache blocks can be shared. If a real model has no reward
model, make one of random weights; its tokens and times are those of a trained one:

    AutoModelForSequenceClassification.from_pretrained(DIR, num_labels=2).save_pretrained(PRM)
    AutoTokenizer.from_pretrained(DIR).save_pretrained(PRM)
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.common import FreeVerifier
from infer.core.generator import Sampling
from infer.core.ledger import Budget
from infer.core.problem import Problem
from infer.core.search import Setting
from infer.core.solution import Solution
from infer.core.solve import Failure, solve
from infer.core.usage import Usage
from infer.evalsets.base import MATHEMATICS, PLAIN
from infer.evalsets.graders.extraction import extract
from infer.evalsets.nano import load
from infer.generate.backends import VLLM
from infer.generate.engine import InProcessEngine, start_engine
from infer.generate.vllm import VLLMGenerator
from infer.runs.models import ModelRef
from infer.runs.verifiers import VerifierRef
from infer.strategies import find
from infer.testing.toy import ToyGrader

BLOCK = 32
"""Tokens of a prefix cache block."""
MAX_BATCH = 256
"""Sequences that the engine runs at once."""

WIDE = {
    "best-of-n": ["n={n}"],
    "self-consistency": ["n={n}"],
    "astar": ["k={n}"],
    "beam": ["n={n}", "width=2"],
    "dvts": ["n={n}", "width=2"],
    "particle-filter": ["n={n}"],
    "particle-gibbs": ["n={n}"],
    "mcts": ["parallel={n}"],
    "ab-mcts": ["parallel={n}"],
}
"""Options of the strategies that have n sequences of a problem in flight."""
NARROW = {"self-refine": ["keep=prm"], "budget-forcing": ["waits=2"]}
"""Options of the strategies that have one."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an engine: requests in its batch, prompt tokens computed, seconds in all and in the model."""

    running: int
    prefill: int
    seconds: float
    model_seconds: float
    problems: int
    """Problems in flight."""


@dataclass(slots=True)
class Served:
    """One request that was served."""

    prompt: list[int]
    cached: int
    output: Sequence[int]


@dataclass(slots=True)
class Turn:
    """An engine's work while something ran on it. Times are in seconds."""

    seconds: float = 0.0
    adding: float = 0.0
    tokens: int = 0
    steps: list[Step] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)

    @property
    def stepping(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def admission(self) -> float:
        """Time in the engine, but not in the model."""
        return self.adding + sum(step.seconds - step.model_seconds for step in self.steps)

    @property
    def prefill(self) -> int:
        return sum(len(request.prompt) - request.cached for request in self.served)


class Meter:
    """An `LLMEngine` with a clock, which takes the place of the one in an `InProcessEngine`.

    Brittle: it takes the scheduler's output where vLLM (0.32) passes it to the model's executor.
    """

    def __init__(self, engine: InProcessEngine) -> None:
        self.turn = Turn()
        self.problems = 0
        """Problems in flight."""
        self.cache = True
        """Whether requests read the prefix cache."""
        self._engine = engine._engine
        self._prompts: dict[str, list[int]] = {}
        self._running = self._prefill = 0
        self._in_model = 0.0
        executor = self._engine.engine_core.engine_core.model_executor
        for name in ("execute_model", "sample_tokens"):
            setattr(executor, name, self._timed(getattr(executor, name)))
        engine._engine = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(argument: Any = None, *more: Any, **options: Any) -> Any:
            if hasattr(argument, "num_scheduled_tokens"):
                new = {request.req_id for request in argument.scheduled_new_reqs}
                tokens = argument.num_scheduled_tokens
                self._running = len(tokens)
                self._prefill = sum(tokens[name] for name in new)
            start = time.perf_counter()
            result = call(argument, *more, **options)
            self._in_model += time.perf_counter() - start
            return result

        return timed

    def add_request(self, name: str, prompt: Any, params: Any) -> None:
        start = time.perf_counter()
        if not self.cache:
            params.skip_reading_prefix_cache = True
        self._prompts[name] = prompt["prompt_token_ids"]
        self._engine.add_request(name, prompt, params)
        self.turn.adding += time.perf_counter() - start

    def step(self) -> list[Any]:
        self._running, self._prefill, self._in_model = 0, 0, 0.0
        start = time.perf_counter()
        outputs: list[Any] = self._engine.step()
        seconds = time.perf_counter() - start
        self.turn.steps.append(Step(self._running, self._prefill, seconds, self._in_model, self.problems))
        for output in outputs:
            if output.finished:
                prompt = self._prompts.pop(output.request_id)
                sampled = output.outputs[0].token_ids if isinstance(output.outputs, list) else []
                self.turn.served.append(Served(prompt, output.num_cached_tokens or 0, sampled))
        return outputs

    def start(self) -> None:
        """Starts a new turn, with empty caches."""
        self.reset_prefix_cache()
        self.turn = Turn()
        self._prompts.clear()


def solve_all(
    meter: Meter, setting: Setting, problems: list[Problem], template: Any, name: str, options: list[str], at_once: int
) -> tuple[Turn, Usage]:
    """Solves all problems by a strategy, with a limited number in flight."""
    strategy = find(name)
    solved, usage = 0, Usage()

    def record(outcome: Solution | Failure) -> None:
        nonlocal solved, usage
        if isinstance(outcome, Failure):
            raise SystemExit(f"{name}: {outcome.error}")
        usage += outcome.usage
        solved += 1
        meter.problems = min(at_once, len(problems) - solved)

    given = strategy.configure(options)
    meter.start()
    meter.problems = min(at_once, len(problems))
    start = time.perf_counter()
    asyncio.run(solve(problems, template.messages, setting, strategy, given, record, concurrency=at_once))
    meter.turn.seconds = time.perf_counter() - start
    meter.turn.tokens = usage.generated
    return meter.turn, usage


def generate_all(meter: Meter, prompts: list[list[int]], n: int, tokens: int) -> Turn:
    """Samples `n` completions of each prompt, with the given total of tokens, as `LLM.generate` does.

    All completions have the same length, so the total is rounded.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    each = max(1, round(tokens / n / len(prompts)))
    params = SamplingParams(
        n=n, temperature=1.0, max_tokens=each, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY
    )
    meter.start()
    start = time.perf_counter()
    for i, prompt in enumerate(prompts):
        meter.add_request(f"bare-{i}", {"prompt_token_ids": prompt}, params)
    while meter.has_unfinished_requests():
        for output in meter.step():
            meter.turn.tokens += sum(len(sample.token_ids) for sample in output.outputs)
    meter.turn.seconds = time.perf_counter() - start
    return meter.turn


def step_costs(turns: Iterable[Turn]) -> tuple[float, float, float]:
    """Model seconds by least squares: fixed for a step, for each sequence in it, and for each prefilled token."""
    steps = [step for turn in turns for step in turn.steps if step.running]
    rows = np.array([(1, step.running, step.prefill) for step in steps], dtype=float)
    fixed, sequence, prefilled = nnls(rows, np.array([step.model_seconds for step in steps]))[0]
    return float(fixed), float(sequence), float(prefilled)


def prefixes(tokens: Sequence[int]) -> Iterable[int]:
    """A name for each prefix of these tokens, the shortest first."""
    name = 0
    for token in tokens:
        name = hash((name, token))
        yield name


def needed(served: Sequence[Served]) -> int:
    """Prompt tokens that some request had to compute: each prefix once, without prefixes computed while sampling."""
    asked: set[int] = set()
    sampled: set[int] = set()
    for request in served:
        names = list(prefixes([*request.prompt, *request.output[:-1]]))  # the last token was never an input
        asked.update(names[: len(request.prompt)])
        sampled.update(names[len(request.prompt) :])
    return len(asked - sampled)


def lost(ours: list[Turn], bare: list[Turn], problems: int, width: int) -> dict[str, float]:
    """Where our time goes: shares of the seconds of all turns, and their basis (see the module's docstring)."""
    seconds = sum(turn.seconds for turn in ours)
    fixed, _, prefilled = step_costs([*ours, *bare])
    steps = [step for turn in ours for step in turn.steps]
    slots = min(MAX_BATCH, problems * width)
    there = sum(min(MAX_BATCH, step.problems * width) for step in steps)
    idle = there - sum(step.running for step in steps)
    again = sum(turn.prefill - needed(turn.served) for turn in ours)
    return {
        "barriers": idle / slots * fixed / seconds,
        "idle_slots": idle / there,
        "tail": (len(steps) - there / slots) * fixed / seconds,
        "re_prefill": again * prefilled / seconds,
        "prompt_tokens": sum(turn.prefill for turn in ours) / len(ours),
        "prompt_tokens_again": again / len(ours),
        "admission": sum(turn.admission for turn in ours) / seconds,
        "bare_admission": sum(turn.admission for turn in bare) / sum(turn.seconds for turn in bare),
        "ours": sum(turn.seconds - turn.adding - turn.stepping for turn in ours) / seconds,
        "batch": statistics.fmean(step.running for step in steps),
        "bare_batch": statistics.fmean(step.running for turn in bare for step in turn.steps),
    }


def compare(
    name: str, ours: Callable[[], Turn], bare: Callable[[int], Turn], problems: int, width: int, repeats: int
) -> dict[str, Any]:
    """Takes turns of ours and of the bare call, which gets the number of tokens that ours made."""
    turns = []
    for _ in range(repeats):
        turn = ours()
        turns.append((turn, bare(turn.tokens)))
    mine, theirs = [list(side) for side in zip(*turns, strict=True)]
    rates = [(a.tokens / a.seconds, b.tokens / b.seconds) for a, b in turns]
    ratios = [a / b for a, b in rates]
    it = lost(mine, theirs, problems, width)
    result = {
        "strategy": name,
        "tokens": round(statistics.fmean(turn.tokens for turn in mine)),
        "ours_tokens_per_sec": round(statistics.median(a for a, _ in rates)),
        "bare_tokens_per_sec": round(statistics.median(b for _, b in rates)),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "lost": it,
    }
    print(
        f"{name:<16} {result['tokens']:>8,} tokens   ours {result['ours_tokens_per_sec']:>6,} tok/s   "
        f"bare {result['bare_tokens_per_sec']:>6,} tok/s   ratio {result['ratio']:.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {repeats} turns)\n"
        f"    barriers {it['barriers']:.1%} ({it['idle_slots']:.0%} of slots idle)   tail {it['tail']:.1%}   "
        f"re-prefill {it['re_prefill']:.1%} ({it['prompt_tokens_again']:,.0f} of {it['prompt_tokens']:,.0f} tokens)   "
        f"admission {it['admission']:.1%} (bare {it['bare_admission']:.1%})   ours {it['ours']:.1%}   "
        f"mean batch {it['batch']:.0f} (bare {it['bare_batch']:.0f})",
        flush=True,
    )
    return result


class Overlap:
    """The seconds of the verifier's steps, and those of them in which the generator had work too."""

    def __init__(self, generator: Meter, verifier: Meter) -> None:
        self._generator, self._verifier, self._step = generator, verifier, verifier.step
        self.both = 0.0
        verifier.step = self._timed  # type: ignore[method-assign]

    def _timed(self) -> list[Any]:
        busy = self._generator.has_unfinished_requests()
        start = time.perf_counter()
        outputs = self._step()
        self.both += busy * (time.perf_counter() - start)
        return outputs


def share_of_verifier(name: str, turns: list[tuple[Turn, Turn, float]], passes: int) -> dict[str, Any]:
    """The share of a search's time that its reward model takes.

    Each turn has the search, the verifier and their overlap.
    """
    seconds = sum(search.seconds for search, _, _ in turns)
    generator = sum(search.adding + search.stepping for search, _, _ in turns)
    verifier = sum(judged.adding + judged.stepping for _, judged, _ in turns)
    both = sum(overlap for _, _, overlap in turns)
    print(
        f"{name:<16} {seconds / len(turns):6.1f} s   generator {generator / seconds:.1%}   "
        f"PRM {verifier / seconds:.1%} ({passes:,} passes)   ours {1 - (generator + verifier) / seconds:.1%}   "
        f"of the PRM's time {both / max(verifier, 1e-9):.0%} while the generator had work: what could overlap on two "
        "devices; here they take turns",
        flush=True,
    )
    return {
        "strategy": name,
        "seconds": seconds / len(turns),
        "generator_share": generator / seconds,
        "verifier_share": verifier / seconds,
        "of_it_while_generator_had_work": both / max(verifier, 1e-9),
        "passes": passes,
    }


def rounded(served: Sequence[Served]) -> int:
    """Prompt tokens to compute if a request can share only whole blocks of earlier prefixes."""
    known: set[int] = set()
    total = 0
    for request in served:
        names = list(prefixes(request.prompt))
        shared = next((i for i, name in enumerate(names) if name not in known), len(names) - 1)
        total += len(names) - shared // BLOCK * BLOCK
        known.update(names)
    return total


def incremental(name: str, cached: list[Turn], uncached: list[Turn]) -> dict[str, Any]:
    """The tokens that the verifier computed, with its prefix cache and without, against its final tree."""
    tree, blocks = needed(cached[-1].served), rounded(cached[-1].served)
    with_cache, without = cached[-1].prefill, uncached[-1].prefill
    seconds, seconds_without = (
        statistics.median(turn.adding + turn.stepping for turn in turns) for turns in (cached, uncached)
    )
    print(
        f"{name:<16} verifier tokens {with_cache:,}: {with_cache / tree:.2f} of the final tree's {tree:,}, "
        f"{with_cache / blocks:.2f} of it plus rounding to blocks ({blocks:,});   all prefixes {without:,}: "
        f"{without / with_cache:.1f} times as many   {seconds:.1f} s against {seconds_without:.1f} s",
        flush=True,
    )
    return {
        "strategy": name,
        "computed": with_cache,
        "tree": tree,
        "tree_plus_rounding": blocks,
        "all_prefixes": without,
        "seconds": seconds,
        "seconds_without_cache": seconds_without,
    }


def metered(engine: Any) -> Meter:
    if not isinstance(engine, InProcessEngine):
        raise SystemExit("this measures engines inside the process: run it on a machine without a GPU")
    return Meter(engine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prm", help="measure with this reward model instead of against the bare call")
    parser.add_argument("--strategies", nargs="+", choices=[*WIDE, *NARROW], help="default: all; with --prm, two")
    parser.add_argument("--problems", type=int, default=64, help="in flight at once")
    parser.add_argument("--rounds", type=int, default=1, help="a strategy solves so many times --problems in a turn")
    parser.add_argument("--n", type=int, default=4, help="samples, next steps, particles, simulations in flight")
    parser.add_argument("--max-tokens", type=int, default=160, help="of a solution; n times it is the budget")
    parser.add_argument(
        "--step-tokens", type=int, help="every step has this length; default: steps end at a blank line"
    )
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    model = ModelRef.named(args.model)
    profile = model.profile
    engine = start_engine(model.where, "generate", dtype=profile.dtype, memory_fraction=0.5)
    meter = metered(engine)
    generator = VLLMGenerator(engine)
    template = PLAIN if model.packaged else MATHEMATICS
    stream = list(islice(load(size=10_000), args.problems * args.rounds))
    prompts = [asyncio.run(generator.encode(template.messages(problem))) for problem in stream]
    setting = Setting(
        generator=generator,
        verifier=FreeVerifier(),
        grader=ToyGrader(extract),
        sampling=Sampling(temperature=1.0, max_tokens=args.max_tokens),
        budget=Budget(args.n * args.max_tokens, "tokens"),
        step_tokens=args.step_tokens or profile.step_tokens,
        delimiter="\x00" if args.step_tokens else profile.delimiter,
    )
    options = {name: [text.format(n=args.n) for text in texts] for name, texts in (WIDE | NARROW).items()}

    def ours(name: str, problems: list[Problem], setting: Setting = setting) -> tuple[Turn, Usage]:
        return solve_all(meter, setting, problems, template, name, options[name], args.problems)

    def solved(name: str) -> Turn:
        return ours(name, stream)[0]

    results: list[dict[str, Any]] = []
    if args.prm is None:
        ours("best-of-n", stream[: args.problems // 4])  # warms up
        for name in args.strategies or options:
            width = args.n if name in WIDE else 1
            run, bare = partial(solved, name), partial(generate_all, meter, prompts, width)
            results.append(compare(name, run, bare, args.problems, width, args.repeats))
    else:
        verifier: Any = asyncio.run(VerifierRef.named(args.prm).open(VLLM, memory_fraction=0.4))
        judge = metered(verifier._reader._engine)
        overlap = Overlap(meter, judge)
        judged = replace(setting, verifier=verifier)
        ours("beam", stream[: args.problems // 4], judged)  # warms up
        for name in args.strategies or ("beam", "astar"):
            searched: list[tuple[Turn, Turn, float]] = []
            uncached: list[Turn] = []
            for _ in range(args.repeats):
                for judge.cache in (True, False):
                    judge.start()
                    overlap.both = 0.0
                    turn, usage = ours(name, stream, judged)
                    if judge.cache:
                        searched.append((turn, judge.turn, overlap.both))
                        passes = usage.passes
                    else:
                        uncached.append(judge.turn)
            results.append(share_of_verifier(name, searched, passes))
            results.append(incremental(name, [judging for _, judging, _ in searched], uncached))
    settings = {key: value for key, value in vars(args).items() if key != "strategies"}
    print(json.dumps(settings | {"results": results}))


if __name__ == "__main__":
    main()
