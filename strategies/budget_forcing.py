"""Budget forcing (Muennighoff et al. s1, 2501.19393): how long a reasoning model thinks is decided when it is run.

    y <- ""
    repeat   y <- y + sample until </think>, for at most what is left to think
             if it came to an end and should wait: take </think> back; y <- y + "Wait"
    if the thinking was cut off: y <- y + "</think>" + "Final Answer:"
    return   y + sample until the end

Forced text is part of the trajectory. The model does not generate it, and a budget of tokens is not charged for it.

A model that has no `</think>` in its vocabulary thinks in its answer: its thinking ends where it ends. To wait is then
to take its end token back, and thinking that is cut off goes on after "Final Answer:" alone.
"""

from bisect import bisect_right

from pydantic import Field

from infer.core.options import Count, Options, Shape, Tokens
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node

CLOSE = "</think>"


class BudgetForcingOptions(Options):
    thinking: Tokens | None = Field(
        None, ge=1, description="tokens to think with; by default, and at most, all that leave `answer` for the answer"
    )
    waits: Count = Field(0, ge=0, description="times that an end of thinking is taken back")
    answer: Tokens = Field(128, ge=1, description="tokens kept for the answer")
    close: str | None = Field(
        None,
        description=f"ends the thinking; default: {CLOSE} if it is one token of the model's vocabulary, else nothing",
    )
    wait: str = Field("Wait", min_length=1, description="what the model reads in place of its end of thinking")
    final: str = Field("Final Answer:", description="what it reads after thinking that was cut off")

    def shape(self) -> Shape:
        return Shape(1)


async def budget_forcing(search: Search, options: BudgetForcingOptions) -> Solution:
    """One trajectory whose thinking is cut off at a token budget, or made to go on by "Wait"."""
    close = await _delimiter(search) if options.close is None else options.close
    cut_off = (f"{close}\n\n" if close else "") + options.final
    # at most: a text that ends within a line gets a new one first
    kept = options.answer, len(await search.tokenize("\n\n" + cut_off))
    node, waits = search.root, options.waits
    while True:
        left = max(1, _thinking_tokens(search, node, options.thinking, *kept))
        (node,) = await search.sample(node, until="end", delimiter=close or None, max_tokens=left)
        wait = _new_line(node.text.removesuffix(close)) + options.wait
        wait_tokens = len(await search.tokenize(wait))
        if node.finish == "length" or not waits:
            break
        if _thinking_tokens(search, node, options.thinking, *kept) <= wait_tokens:
            break
        waits -= 1
        node = await search.extend(node, wait, without=close)
    if node.finish == "length" and not node.full:
        node = await search.extend(node, _new_line(node.text) + cut_off)
    if not node.final:
        (node,) = await search.sample(node, until="end")
    return search.solution(node)


async def _delimiter(search: Search) -> str:
    """The text that ends the model's thinking; empty where that is no token of its vocabulary.

    A server that takes text has no token ids to check: it is trusted to know it.
    """
    tokens = await search.tokenize(CLOSE)
    return CLOSE if isinstance(tokens, str) or len(tokens) == 1 else ""


def _thinking_tokens(search: Search, node: Node, thinking: int | None, answer: int, forced: int) -> int:
    """How many more tokens of thinking leave room for the forced text, and room and budget for the answer after it."""

    def spent(tokens: int) -> float:
        return search.price(node, tokens) + search.price(node, answer, ahead=tokens + forced)

    most = search.room(node) - forced - answer
    if thinking is not None:
        most = min(most, thinking - node.length)
    return bisect_right(range(1, most + 1), search.left, key=spent)


def _new_line(text: str) -> str:
    """The line break that the next text needs to begin a line."""
    return "" if text.endswith("\n") else "\n\n"
