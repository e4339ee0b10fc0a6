"""Programs chosen by tests that the model writes itself, and that may be as wrong as the programs.

tests     t_1 .. t_M ~ p(. | x, WRITE, BEGUN)                before the programs, within the same budget
passes    E_ij: program y_i passes test t_j                  in the sandbox
return    the program that E says is most likely right       `infer.core.consensus`: b4, codet, mbr-exec, max-pass
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from infer.core import consensus
from infer.core.search import Search
from infer.core.tree import Node

TestedChoice = Literal["b4", "codet", "mbr-exec", "max-pass"]

WRITE = """Here is a programming problem.

{problem}

Do not solve it. Write tests for it instead: {n} lines of Python, each of the form `assert function(input) == output`, \
with different inputs, edge cases among them. Answer with one ```python block."""

BEGUN = "```python\nassert"
"""The answer is made to begin like this: a small model solves the problem again otherwise."""

RULES: dict[TestedChoice, Callable[[np.ndarray], consensus.Selection]] = {
    "b4": consensus.b4,
    "codet": consensus.codet,
    "mbr-exec": consensus.mbr_exec,
    "max-pass": consensus.max_pass,
}


async def write_tests(search: Search, n: int, tokens: int) -> list[str]:
    """At most `n` different tests, in the order in which the model wrote them. Raises BudgetSpent."""
    root = await search.chat([{"role": "user", "content": WRITE.format(problem=search.problem.prompt, n=n)}])
    if root.final:  # the problem fills the context
        return []
    begun = await search.extend(root, BEGUN)
    if begun.final:
        return []
    (written,) = await search.sample(begun, until="end", max_tokens=tokens)
    return list(dict.fromkeys(search.tests(written.completion)))[:n]


async def tested(search: Search, samples: Sequence[Node], tests: Sequence[str], how: TestedChoice) -> Node | None:
    """The program that the tests choose; of equally good ones the earliest. None without samples.

    Unfinished programs take part only where none is finished. Programs of equal text count once, as copies are no
    further evidence. Raises BudgetSpent where the executions are not covered.
    """
    pool = [node for node in samples if node.finished] or list(samples)
    first: dict[str, Node] = {}
    for node in pool:
        if (program := search.answer(node)) is not None:
            first.setdefault(program, node)
    nodes = list(first.values())
    if not nodes:
        return pool[0] if pool else None
    passes = np.array(await search.passes(nodes, tests), dtype=bool).reshape(len(nodes), len(tests))
    return nodes[RULES[how](passes).choice]
