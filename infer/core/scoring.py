"""The scores of one search: finds the nodes that lack them, reserves their price, asks the verifier."""

from collections.abc import Sequence
from contextlib import ExitStack

from infer.core.ledger import Ledger, Reservation
from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.tasks import gather_or_cancel
from infer.core.trace import Watch
from infer.core.tree import Node, complete_steps, split_steps
from infer.core.verifier import Verifier, ask
from infer.errors import BudgetSpent, TooLong


class Scorer:
    """Asks a verifier for the scores of one problem's trajectories and stores them on the nodes, within the budget."""

    def __init__(self, verifier: Verifier, problem: Problem, delimiter: str, ledger: Ledger, watch: Watch) -> None:
        self.verifier = verifier
        self.too_long: dict[Node, TooLong] = {}
        """Nodes whose trajectory exceeds the verifier's context."""
        self._problem = problem
        self._delimiter = delimiter
        self._ledger = ledger
        self._watch = watch

    async def score(self, nodes: Sequence[Node]) -> None:
        """Scores all that the trajectories up to these nodes lack; see `Search.score`."""
        waiting = list(dict.fromkeys(lacking for node in nodes for lacking in self._lacking(node)))
        while waiting:
            calls = []
            with ExitStack() as held:  # a call that is cancelled before it begins returns what it has reserved
                for node in waiting:
                    steps = self._steps(node)
                    price = await self._price(node, steps)
                    if not self._ledger.covers(price):
                        break
                    reservation = self._ledger.take(price)
                    held.enter_context(reservation)
                    calls.append((node, steps, reservation))
                await gather_or_cancel(self._score(*call) for call in calls)
            if calls:
                self._watch.scored(waiting[: len(calls)], self._ledger.left)
                waiting = waiting[len(calls) :]
            elif self._ledger.waiting:
                await self._ledger.settlement()
            else:
                raise BudgetSpent

    def _lacking(self, node: Node) -> list[Node]:
        """The nodes up to here without scores, in the order of the trajectory."""
        lacking = [above for above in node.trajectory if above.scores is None]
        if any(above in self.too_long for above in lacking):
            return []
        if self.verifier.stepwise:
            return lacking
        for above in lacking[:-1]:
            above.scores = []  # the last node's score is that of the whole
        return lacking[-1:]

    def _steps(self, node: Node) -> list[str]:
        """The steps of the trajectory; notes on the node which of them its scores begin with."""
        node.scored_from = complete_steps(node.parent, self._delimiter) if self.verifier.stepwise else 0
        return split_steps(node.completion, self._delimiter)

    def _passes(self, node: Node, steps: Sequence[str]) -> int:
        """How many scores the verifier is to give."""
        return len(steps) - node.scored_from if self.verifier.stepwise else min(len(steps), 1)

    async def _price(self, node: Node, steps: Sequence[str]) -> float:
        """The highest price of scoring a node."""
        passes, unit = self._passes(node, steps), self._ledger.unit
        calls: Sequence[Call] = ()
        if passes and unit is not None and unit.counts_requests:
            calls = await self.verifier.most(self._problem, steps, node.scored_from, node.finished)
        return self._ledger.price_of_scores(calls, passes)

    async def _score(self, node: Node, steps: Sequence[str], reservation: Reservation) -> None:
        passes, pricing = self._passes(node, steps), self._ledger.pricing
        with reservation:
            if passes == 0:  # white space alone
                node.scores = []
                return
            try:
                scores = await ask(self.verifier, self._problem, steps, node.scored_from, node.finished)
            except TooLong as error:
                self.too_long[node] = error
                self._ledger.usage += pricing.judging(error.calls)
                return
            node.scores = scores.values
            self._ledger.usage += pricing.judging(scores.calls, passes)
