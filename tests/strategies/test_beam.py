"""Beam search against exhaustive search, and against a plain implementation of its definition."""

import itertools
from collections import Counter
from typing import Any

import pytest

from infer.core.generator import Completion, Request, Sampling
from infer.core.search import Search, Setting
from infer.core.solution import Solution
from infer.core.tree import Finish, Node
from infer.errors import UserError
from infer.strategies import find
from infer.testing import toy
from tests.strategies.test_laws import run

STEPS, DEPTH = 3, 3


class EnumeratingGenerator(toy.ToyGenerator):
    """Every solution has three steps of one digit, 0, 1 or 2. Any three successive seeds give all three next steps."""

    def _complete(self, request: Request, prompt: list[int], seed: int) -> Completion:
        tokens: list[int] = []
        while True:
            last = len([token for token in prompt[1:] + tokens if token == toy.DELIMITER]) == DEPTH - 1
            tokens += [seed % STEPS, toy.END if last else toy.DELIMITER]
            if last or request.delimiter is not None:
                break
        self.generated += len(tokens)
        self.prompt_tokens += len(prompt)
        finish: Finish = "end" if last else "step"
        return Completion(tokens, len(tokens), toy.decode(tokens), finish, None, len(prompt), 0)


@pytest.mark.parametrize("aggregation", ["last", "min", "prod", "mean"])
async def test_beam_of_full_width_is_exhaustive_search(aggregation: str) -> None:
    """With as many beams as prefixes, nothing is pruned. The search sees all 27 solutions and finds the best."""
    options = ["n=27", "width=3", "duplicates=no", f"aggregation={aggregation}"]
    for digits in "0123456789":
        setting = toy.setting(generator=EnumeratingGenerator())
        solution = await run(setting, "beam", options, digits)
        texts = ["\n\n".join(steps) for steps in itertools.product("012", repeat=DEPTH)]
        assert sorted(candidate.text for candidate in solution.candidates) == sorted(texts)
        assert solution.chosen is not None
        assert solution.candidates[solution.chosen].text == max(texts, key=lambda text: worth(text, aggregation))


def worth(text: str, aggregation: str = "last") -> float:
    """The toy reward of a whole text: its step rewards, aggregated."""
    steps = [step for step in text.split("\n\n") if step]
    scores = [toy.reward("\n\n".join(steps[: i + 1])) for i in range(len(steps))]
    if not scores:
        return 0.0
    product = 1.0
    for score in scores:
        product *= score
    return {"last": scores[-1], "min": min(scores), "prod": product, "mean": sum(scores) / len(scores)}[aggregation]


async def narrow(search: Search, n: int, width: int, iterations: int, duplicates: bool) -> list[Node]:
    """The final nodes that beam search meets: Snell et al.'s procedure, from texts and rewards alone."""
    final: list[Node] = []
    beams = [search.root]
    for iteration in range(iterations):
        steps = []
        for beam in beams:
            until: Any = "end" if iteration == iterations - 1 else "step"
            steps += await search.sample(beam, n // len(beams), until=until)
        if not duplicates:
            texts = [(step.completion, step.finish) for step in steps]
            steps = [step for index, step in enumerate(steps) if texts[index] not in texts[:index]]
        final += [step for step in steps if step.final]
        alive = [step for step in steps if not step.final]
        alive.sort(key=lambda step: -worth(step.completion))
        beams = alive[: n // width]
        if not beams or len(final) >= n:
            break
    return final


@pytest.mark.parametrize("duplicates", [True, False])
@pytest.mark.parametrize(("n", "width", "iterations"), [(6, 2, 40), (8, 4, 40), (6, 3, 2), (4, 4, 40), (1, 1, 40)])
async def test_beam_keeps_the_best_steps(n: int, width: int, iterations: int, duplicates: bool) -> None:
    for digits in map(str, range(12)):
        options = [f"n={n}", f"width={width}", f"iterations={iterations}", f"duplicates={duplicates}"]
        solution = await run(setting(), "beam", options, digits)
        plain = await toy.search(setting(), digits)
        final = await narrow(plain, n, width, iterations, duplicates)
        assert solution.usage.generated == plain.ledger.usage.generated
        scored = [candidate.address for candidate in solution.candidates if candidate.scores is not None]
        assert scored == sorted(node.address for node in final)
        finished = [node for node in final if node.finished] or final
        best = max(finished, key=lambda node: worth(node.completion))
        assert solution.chosen is not None
        assert solution.candidates[solution.chosen].address == best.address


def setting(**changes: Any) -> Setting:
    return toy.setting(sampling=Sampling(temperature=1.0, max_tokens=40), **changes)


async def test_one_beam_of_width_one_is_sampling_step_by_step() -> None:
    for digits in map(str, range(12)):
        solution = await run(setting(), "beam", ["n=1", "width=1"], digits)
        search = await toy.search(setting(), digits)
        node = search.root
        while not node.final:
            (node,) = await search.sample(node)
        assert [candidate.text for candidate in solution.candidates] == [node.completion]


async def test_equal_beams_are_one_when_asked() -> None:
    """At temperature zero all steps are equal, so one beam is left. It is scored once and still samples n steps."""
    for digits in map(str, range(8)):
        cold = toy.setting(sampling=Sampling(temperature=0, max_tokens=60))
        solution = await run(cold, "beam", ["n=4", "width=2", "duplicates=no"], digits)
        assert solution.chosen is not None
        chosen = solution.candidates[solution.chosen]
        assert solution.usage.generated == 4 * chosen.num_tokens
        assert solution.usage.passes == len(chosen.steps)


@pytest.mark.parametrize("name", ["beam", "dvts"])
async def test_a_lookahead_values_a_step_by_what_greedy_decoding_makes_of_it(name: str) -> None:
    """After one iteration the rest is sampled at once. The step that is continued is the one with the best rollout."""
    changed = 0
    for digits in map(str, range(20)):
        options = ["n=5", "width=5", "iterations=2", "duplicates=yes"]
        solution = await run(setting(), name, [*options, "lookahead=3"], digits)
        search = await toy.search(setting(), digits)
        steps = await search.sample(search.root, 5)
        worths, alone = {}, {}
        for step in steps:
            end = step
            for _ in range(3):
                if not end.final:
                    (end,) = await search.sample(end, temperature=0)
            worths[step.address], alone[step.address] = worth(end.completion), worth(step.completion)
        open_steps = {step.address for step in steps if not step.final}
        # in beam search a finished step no longer competes; in a subtree of DVTS it does
        racing = [address for address in worths if name == "dvts" or address in open_steps]
        best = max(racing, key=lambda address: worths[address], default=None)
        grown = continued(solution)
        assert grown == ({best} if best in open_steps else set())
        changed += best != max(racing, key=lambda address: alone[address], default=None)
    assert changed > 0, "looking ahead must matter"


def continued(solution: Solution) -> set[tuple[int, ...]]:
    """The first steps that lead to more than one solution. A greedy rollout alone gives one."""
    firsts = [candidate.address[:1] for candidate in solution.candidates if len(candidate.address) == 2]
    return {first for first in firsts if firsts.count(first) > 1}


async def test_a_lookahead_is_paid_for_and_no_answer() -> None:
    better = 0
    for digits in "0123456789":
        setting = toy.setting(generator=EnumeratingGenerator())
        solution = await run(setting, "beam", ["n=3", "width=3", "lookahead=2"], digits)
        # three levels of three steps, of two tokens each; a rollout has two greedy steps after the first level
        # and one after the second
        assert solution.usage.passes == 3 * 3 + 3 * 2 + 3 * 1
        assert solution.usage.generated == 2 * solution.usage.passes
        assert solution.chosen is not None
        chosen = solution.candidates[solution.chosen]
        assert len(chosen.address) == DEPTH
        assert 0 not in chosen.address[1:], "the first child of a step is its rollout"
        better += any(toy.reward(candidate.text) > toy.reward(chosen.text) for candidate in solution.candidates)
    assert better > 0


@pytest.mark.parametrize("name", ["beam", "dvts"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["n=10", "width=4"], "option width=4 of {}: n=10 is not divisible by the width"),
        (["n=10"], "option width=4 of {}: n=10 is not divisible by the width"),
        (["n=2", "width=4"], "n=2 is not divisible"),
        (["width=0"], "width=0"),
        (["n=0"], "n=0"),
        (["lookahead=-1"], "lookahead=-1"),
        (["iterations=0"], "iterations=0"),
        (["choose=best"], "choose=best"),
        (["aggregation=sum"], "aggregation=sum"),
        (["beam_width=4"], "no option 'beam_width'.*width"),
    ],
)
def test_bad_options(name: str, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message.format(name)):
        find(name).configure(options)


async def test_n_steps_are_sampled_whatever_the_number_of_beams() -> None:
    uneven = 0
    for digits in map(str, range(20)):
        search = await toy.search(toy.setting(), digits)
        sample, parents = search.sample, list[Any]()

        async def sampling(nodes: Any, *given: Any, parents: Any = parents, sample: Any = sample, **named: Any) -> Any:
            parents.append(nodes)
            return await sample(nodes, *given, **named)

        search.sample = sampling  # type: ignore[method-assign]
        await find("beam").run(search, find("beam").configure(["n=8", "width=2"]))
        for beams in parents:
            counts = list(Counter(beams).values())
            assert sum(counts) == 8
            assert max(counts) - min(counts) <= 1
            uneven += len(set(counts)) > 1
    assert uneven
