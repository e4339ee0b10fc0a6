"""The solutions of every strategy on fixed seeds do not change.

`golden.json` has a digest of each variant of the laws at each budget, over three problems. If a change is meant to
change solutions, its commit message says which and why. Then write the file again:
`python -m tests.strategies.test_golden`.
"""

import asyncio
import json
from hashlib import blake2b
from pathlib import Path

import pytest

from infer.core.solution import Solution
from infer.testing import toy
from tests.strategies.test_laws import VARIANTS, run

GOLDEN = Path(__file__).with_name("golden.json")
BUDGETS = [None, "7tok", "60tok", "200tok", "5prm", "30prm", "3e5flops", "2e6flops", "2e8eflops", "1e-10usd"]
USAGE = ["generated", "discarded", "prefill", "cached", "passes", "verifier_prefill", "verifier_cached", "eflops"]
CANDIDATE = ["address", "tokens", "answer", "finished", "scores", "logprob", "weight"]


def essence(solution: Solution) -> str:
    """The parts of a solution that a refactoring must not change."""
    stored = solution.model_dump(mode="json")
    candidates = [{name: candidate[name] for name in CANDIDATE} for candidate in stored["candidates"]]
    usage = {name: stored["usage"][name] for name in USAGE}
    return json.dumps([solution.chosen, solution.answer, solution.correct, solution.log_evidence, candidates, usage])


async def digest(name: str, options: list[str], budget: str | None) -> str:
    found = [essence(await run(toy.setting(budget), name, options, digits)) for digits in ("7", "22", "345")]
    return blake2b("\n".join(found).encode(), digest_size=6).hexdigest()


def key(name: str, options: list[str]) -> str:
    return " ".join([name, *options])


@pytest.mark.parametrize(("name", "options"), VARIANTS)
async def test_solutions_are_what_they_were(name: str, options: list[str]) -> None:
    golden = json.loads(GOLDEN.read_text())
    found = {str(budget): await digest(name, options, budget) for budget in BUDGETS}
    assert found == golden[key(name, options)]


async def _write() -> None:
    table = {
        key(name, options): {str(budget): await digest(name, options, budget) for budget in BUDGETS}
        for name, options in VARIANTS
    }
    GOLDEN.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(_write())
