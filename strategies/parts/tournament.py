"""A knockout among solutions in which the model itself says which of two is better.

    while more than one solution is left
        pair them as they come; the last of an odd number goes through
        ask the model about each pair in both orders
        the solution that more verdicts prefer goes through

Both orders are asked because models favour a position (Zheng et al. 2306.05685, whose form of verdict is used). Chen
et al. (2411.19477) give the probability that a knockout ends with a right solution.
"""

import re
from collections.abc import Sequence

from infer.core.search import Search
from infer.core.tree import Node
from infer.errors import BudgetSpent

PROMPT = """Two solutions of the same problem follow. Decide which of them is correct, or more likely to be.

Problem:
{problem}

Solution A:
{a}

Solution B:
{b}

Check both briefly, then end with your verdict: [[A]] or [[B]]."""


async def tournament(search: Search, candidates: Sequence[Node], verdict_tokens: int) -> Node | None:
    """The winner; None without candidates. Unfinished solutions take part only where none is finished.

    Solutions with equal answers are not compared. These, and pairs whose verdicts contradict each other, are missing,
    or are not covered by the budget, go to the solution with the higher mean log-probability, or by a coin.
    """
    left = [node for node in candidates if node.finished] or list(candidates)
    answers = dict(zip(left, await search.group(left), strict=True))
    while len(left) > 1:
        pairs = list(zip(left[::2], left[1::2], strict=False))
        through = left[2 * len(pairs) :]
        asked = [pair for pair in pairs if not answers[pair[0]] == answers[pair[1]] >= 0]
        margins = dict(zip(asked, await _compare(search, asked, verdict_tokens), strict=True))
        left = [pair[0] if (margins.get(pair) or _tie_break(search, *pair)) > 0 else pair[1] for pair in pairs]
        left += through
    return left[0] if left else None


async def _compare(search: Search, pairs: Sequence[tuple[Node, Node]], verdict_tokens: int) -> list[int]:
    """For each pair the verdicts for its first solution less those for its second, one asked in each order."""
    margins = [0] * len(pairs)
    questions = []
    for index, (first, second) in enumerate(pairs):
        for a, b, sign in ((first, second, 1), (second, first, -1)):
            prompt = PROMPT.format(problem=search.problem.prompt, a=a.completion.strip(), b=b.completion.strip())
            root = await search.chat([{"role": "user", "content": prompt}])
            if not root.final:  # there is room for a verdict
                questions.append((index, sign, root))
    if not questions:
        return margins
    roots = [root for _, _, root in questions]
    try:
        verdicts = await search.sample(roots, until="end", max_tokens=verdict_tokens, temperature=0)
    except BudgetSpent:
        return margins
    for (index, sign, _), verdict in zip(questions, verdicts, strict=True):
        preferred = re.findall(r"\[\[([AB])\]\]", verdict.completion)
        if preferred:
            margins[index] += sign if preferred[-1] == "A" else -sign
    return margins


def _tie_break(search: Search, first: Node, second: Node) -> float:
    """Positive for the first."""
    likelier = (first.logprob() or 0.0) - (second.logprob() or 0.0)
    return likelier or search.rng.choice([1, -1])
