"""Self-Refine (Madaan et al. 2303.17651): a model criticizes its own solution and writes it again.

    y_0 ~ p(. | x)
    for t = 0, 1, ..:   f_t ~ p(. | x, y_t, CRITICIZE)                           equation 2
                        if f_t finds nothing wrong: stop
                        y_{t+1} ~ p(. | x, y_0, f_0, .., y_t, f_t, REWRITE)      equation 4
    return              the best y_t by the verifier, the last, or the majority's

Critiques are charged to the budget like all else; they are no candidates for the answer.
"""

import re
from typing import Literal

from pydantic import Field

from infer.core.choice import Choice
from infer.core.generator import Message
from infer.core.options import Count, ScoredOptions
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node

NOTHING_WRONG = "it is correct"

CRITICIZE = (
    "Check this solution step by step. If a step is wrong, say which one and why. "
    'If there is no mistake, write only "It is correct."'
)
REWRITE = "Now write the whole solution again, with these mistakes put right. Keep to the format asked for at first."


class SelfRefineOptions(ScoredOptions):
    rounds: Count = Field(4, ge=1, description="critiques, each followed by a rewriting")
    keep: Literal["prm", "last", "majority"] = Field(
        "prm", description="the answer: the solution with the best PRM score, the last one, or a majority vote"
    )

    @property
    def needs_verifier(self) -> bool:
        return self.keep == "prm"


async def self_refine(search: Search, options: SelfRefineOptions) -> Solution:
    """Generate, criticize, rewrite, until the critique finds nothing wrong; the best solution is the answer."""
    solutions: list[Node] = []
    with search.until_spent():
        await _refine(search, solutions, options)
    finished = [solution for solution in solutions if solution.finished] or solutions
    if options.keep == "last" and finished:
        return search.solution(finished[-1])
    how: Choice = "prm" if options.keep == "prm" else "majority"
    return search.solution(await search.choose(solutions, how))


async def _refine(search: Search, solutions: list[Node], options: SelfRefineOptions) -> None:
    """Appends y_0, y_1, .. to `solutions`, as long as the conversation fits the model's context."""
    history: list[Message] = [*search.messages]
    conversation = search.root
    for t in range(options.rounds + 1):
        (solution,) = await search.sample(conversation, until="end")
        solutions.append(solution)
        if options.needs_verifier:
            await search.score([solution])
        if t == options.rounds:
            return
        asked = [_says("assistant", solution.completion), _says("user", CRITICIZE)]
        critique_of = await search.chat([*search.messages, *asked])
        if critique_of.final:
            return
        (critique,) = await search.sample(critique_of, until="end")
        if re.split(r"[.!\n]", critique.text.strip('"* \n'))[0].lower() == NOTHING_WRONG:
            return
        history += [*asked, _says("assistant", critique.text), _says("user", REWRITE)]
        conversation = await search.chat(history, answers=True)
        if conversation.final:
            return


def _says(role: Literal["user", "assistant"], content: str) -> Message:
    return {"role": role, "content": content}
