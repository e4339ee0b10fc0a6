"""What a strategy sees: sampling, scoring, randomness and the budget of one problem."""

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from infer.core.generator import Generator, Message, Request, Sampling
from infer.core.pricing import Call, Pricing
from infer.core.problem import Problem
from infer.core.solution import Candidate, Solution
from infer.core.tasks import gather_or_cancel
from infer.core.trace import Trace
from infer.core.tree import Aggregation, Finish, Node, aggregate, split_steps
from infer.core.usage import Budget, BudgetSpent, Priced, Unit, Usage
from infer.core.verifier import Verifier
from infer.cost.hardware import HARDWARE
from infer.errors import TooLong, UserError

Group = Callable[[Sequence[str | None]], Awaitable[list[int]]]
"""Sorts answers into classes of equal ones: the index of each class's first member, -1 for no answer."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all searches of a run share."""

    generator: Generator
    verifier: Verifier | None
    group: Group
    extract: Callable[[str], str | None]
    """The final answer in a solution's text."""
    sampling: Sampling
    budget: Budget | None = None
    seed: int = 0
    delimiter: str = "\n\n"
    """Ends a step; a property of the model's profile."""
    step_tokens: int = 512
    """A step that has not ended after this many tokens is ended there."""
    pricing: Pricing = field(default_factory=lambda: Pricing(HARDWARE["h100"]))
    traces: Path | None = None
    """A folder for the search trees, one file a problem, written as they grow."""


class Search:
    """One problem being solved. Written for one strategy running alone; the engines below batch all of them."""

    def __init__(self, setting: Setting, problem: Problem, messages: Sequence[Message], root: Node) -> None:
        self.setting = setting
        self.problem = problem
        self.messages = messages
        """The chat that puts the problem to the model."""
        self.root = root
        self.rng = np.random.default_rng(address_seed(setting.seed, problem.id, ()))
        self.usage = Usage()
        self._start = time.monotonic()
        self._reserved = 0.0
        self._in_flight = 0
        self._settled = asyncio.Event()
        self._final: list[Node] = []
        self._partial: list[Node] = []
        self._conversations: dict[int, Node] = {}
        self._asides: set[Node] = set()
        self._too_long: list[TooLong] = []
        if self.room(root) <= 0:
            raise UserError(
                f"problem {problem.id}: its prompt of {len(root.tokens)} tokens leaves no room in the model's context "
                f"of {setting.generator.max_context}: shorten it or raise --max-context"
            )
        if self.unit in get_args(Priced) and not root.tokens:
            raise UserError(f"a budget of {self.unit} needs a server that tells token ids: give it in tokens")
        self._trace = Trace(setting.traces, problem, root) if setting.traces is not None else None

    @classmethod
    async def open(cls, setting: Setting, problem: Problem, messages: Sequence[Message]) -> "Search":
        """The search of a problem whose prompt is this chat."""
        return cls(setting, problem, messages, Node.of_prompt(await setting.generator.encode(messages)))

    @property
    def left(self) -> float:
        """What the budget still allows, in its own unit, calls in flight taken off; infinite without a budget."""
        budget = self.setting.budget
        if budget is None:
            return math.inf
        used: float | None
        match budget.unit:
            case "tokens":
                used = self.usage.generated
            case "prm":
                used = self.usage.passes
            case "seconds":
                used = time.monotonic() - self._start
            case "dollars":
                used = self.setting.pricing.dollars(self.usage)
            case "flops":
                used = self.usage.flops
            case "eflops":
                used = self.usage.eflops
        assert used is not None, "what has no price is refused before it is spent"
        return budget.amount - used - self._reserved

    @property
    def unit(self) -> Unit | None:
        """What the budget is counted in."""
        return self.setting.budget.unit if self.setting.budget is not None else None

    def affordable(self, node: Node, tokens: int | None = None) -> int | None:
        """How many completions of `node`, of so many tokens or to their limit, the budget covers; None: without bound.

        Of a budget that scoring takes from too, one score of each is set aside.
        """
        room = self.room(node) if tokens is None else tokens
        each = self.price(node, room)
        match self.unit:
            case None | "seconds":
                return None
            case "prm":
                each = 1
            case "flops" | "eflops" | "dollars" as unit if (verifier := self.setting.verifier) is not None:
                whole = Call(verifier.spec, node.root.num_tokens + node.length + room, 0, 0)
                each += self.setting.pricing.price(unit, whole)
        return int(self.left / each)

    async def sample(
        self,
        nodes: Node | Sequence[Node],
        n: int = 1,
        *,
        until: Literal["step", "end"] = "step",
        delimiter: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        logprobs: bool = False,
    ) -> list[Node]:
        """Grows `n` children behind each node: one step each, or all the rest.

        Children come node by node, in the order of their seeds. They end at `delimiter`, kept in their text, if it is
        given (finish "step"), and after `max_tokens`. A budget of tokens is reserved before anything is sent.
        Where it does not cover the limits it is shared equally: children may be cut short (finish "length"), but never
        overshoot. Raises BudgetSpent when not even one token each is left.
        """
        nodes = [nodes] if isinstance(nodes, Node) else nodes
        sampling = self.setting.sampling
        if temperature is not None:
            sampling = replace(sampling, temperature=temperature)
        rooms = [self.room(node) for node in nodes]
        assert all(room > 0 for room in rooms), "a final node has no children"
        if until == "step":
            delimiter = delimiter or self.setting.delimiter
            max_tokens = max_tokens or self.setting.step_tokens
            if stop := next((stop for stop in sampling.stop if straddles(stop, delimiter)), None):
                raise UserError(
                    f"--stop {stop!r} may begin in one step and end in the next, where it is missed: name one without "
                    f"the delimiter {delimiter!r} and without its end at the beginning, or another --delimiter"
                )
        limits, reserved = await self._reserve(nodes, [min(room, max_tokens or room) for room in rooms], n)
        first, requests = [], []
        for node, limit in zip(nodes, limits, strict=True):
            request = Request(
                prompt=node.prefix(),
                sampling=sampling,
                max_tokens=limit,
                n=n,
                seed=address_seed(self.setting.seed, self.problem.id, node.address) + node.num_children,
                delimiter=delimiter,
                logprobs=logprobs,
                deadline=self._deadline,
            )
            requests.append(request)
            first.append(node.num_children)
            node.num_children += n
        children = []
        try:
            grown = await gather_or_cancel(self.setting.generator.generate(request) for request in requests)
            for node, start, room, completions in zip(nodes, first, rooms, grown, strict=True):
                for index, done in enumerate(completions, start):
                    call = Call(self.setting.generator.spec, done.prefill, done.cached, done.num_tokens)
                    self.usage += self.setting.pricing.usage(call)
                    full = done.num_tokens >= room
                    child = Node(node, index, done.tokens, done.num_tokens, done.text, done.finish, full, done.logprobs)
                    children.append(child)
        finally:
            self._settle(reserved)
        for child in children:
            self._keep(child)
        if self._trace is not None:
            self._trace.sampled(children, self.left)
        return children

    async def chat(self, messages: Sequence[Message], *, answers: bool = False) -> Node:
        """The root of another conversation about the problem: a critique, a comparison, a rewriting.

        What is sampled behind it is charged like all else, and is a candidate for the answer only with `answers`. The
        same messages open the same conversation. It is final where the prompt leaves no room in the model's context.
        """
        prompt = await self.setting.generator.encode(messages)
        # named by what it says, not by when it was opened, so that its seeds are the same whatever ran before
        name = -1 - int.from_bytes(hashlib.blake2b(repr(prompt).encode(), digest_size=4).digest())
        if name not in self._conversations:
            root = Node.of_prompt(prompt, name)
            root.full = self.room(root) <= 0
            self._conversations[name] = root
            if not answers:
                self._asides.add(root)
            if self._trace is not None:
                self._trace.opened(root)
        return self._conversations[name]

    async def extend(self, node: Node, text: str, *, without: str = "") -> Node:
        """A child that holds this text instead of sampled tokens: not generated, but part of the trajectory.

        What ended `node` is taken back: the model's end token, and the string `without` where the node ends in it. The
        child then hangs on a copy of the node without them. Raises UserError where `without` is merged into a token.
        """
        if node.parent is not None and (node.finished or (without and node.text.endswith(without))):
            node = await self._without_its_end(node.parent, node, without)
        forced = await self.setting.generator.tokenize(text)
        tokens = [] if isinstance(forced, str) else forced
        room = self.room(node)
        finish: Finish = "step" if text.endswith(self.setting.delimiter) else "length"
        child = Node(node, node.num_children, tokens, len(tokens), text, finish, len(tokens) >= room, [], forced=True)
        node.num_children += 1
        self._keep(child)
        if self._trace is not None:
            self._trace.sampled([child], self.left)
        return child

    async def _without_its_end(self, parent: Node, node: Node, without: str) -> Node:
        tokens, text = node.tokens, node.text
        if without and text.endswith(without):
            text = text.removesuffix(without)
            end = await self.setting.generator.tokenize(without)
            if isinstance(end, list):
                if tokens[-len(end) :] != end:
                    raise UserError(f"{without!r} is not a token of its own in this model's vocabulary")
                tokens = tokens[: -len(end)]
        elif not any(text.endswith(stop) for stop in self.setting.sampling.stop):
            tokens = tokens[:-1]
        logprobs = node.logprobs[: len(tokens)] if node.logprobs is not None else None
        num_tokens = len(tokens) if node.tokens else node.num_tokens
        copy = Node(parent, parent.num_children, tokens, num_tokens, text, "length", logprobs=logprobs)
        parent.num_children += 1
        if self._trace is not None:
            self._trace.sampled([copy], self.left)
        return copy

    def prune(self, nodes: Iterable[Node]) -> None:
        """Says, for the trace, that the search goes on without these nodes."""
        if self._trace is not None:
            self._trace.pruned(nodes)

    def _keep(self, node: Node) -> None:
        if node.root not in self._asides:
            (self._final if node.final else self._partial).append(node)

    async def score(self, nodes: Sequence[Node]) -> None:
        """Asks the verifier for the scores of the steps that end in these nodes, and stores them on the nodes.

        A budget that can't cover all nodes is spent on the first of them; then, as whenever nothing is left,
        BudgetSpent is raised. But tokens that are spent may still be scored: they were bought to be. A trajectory that
        does not fit the verifier's context stays without scores, and the solution says so.
        """
        verifier = self.setting.verifier
        if verifier is None:
            raise UserError(
                "this strategy needs a process reward model: name one with --prm (an own strategy also has to say so: "
                "needs_verifier of its options)"
            )
        waiting = list(nodes)
        while waiting:
            calls, reserved = [], dict[Node, float]()
            try:
                for node in waiting:
                    steps = split_steps(node.completion, self.setting.delimiter)
                    node.scored_from = self._complete_steps(node.parent) if verifier.stepwise else 0
                    new = len(steps) - node.scored_from if verifier.stepwise else min(len(steps), 1)
                    wanted = await self._score_price(verifier, node, steps, new)
                    if self.left < wanted or (self.unit == "seconds" and self.left <= 0):
                        break
                    self._take(wanted)
                    reserved[node] = wanted
                    calls.append((node, steps, new))
                await gather_or_cancel(self._score(verifier, *call, reserved) for call in calls)
            finally:
                for amount in reserved.values():  # of calls that were cancelled before they began
                    self._settle(amount)
            if calls:
                if self._trace is not None:
                    self._trace.scored(waiting[: len(calls)], self.left)
                waiting = waiting[len(calls) :]
            elif self._in_flight and self.unit in get_args(Priced):
                await self._settlement()
            else:
                raise BudgetSpent

    async def _score_price(self, verifier: Verifier, node: Node, steps: list[str], new: int) -> float:
        """What scoring takes off the budget at most."""
        match self.unit:
            case "prm":
                return new
            case "flops" | "eflops" | "dollars" as unit if new:
                price = self.setting.pricing.price
                most = await verifier.most(self.problem.prompt, steps, node.scored_from, node.finished)
                return sum(price(unit, call) for call in most)
        return 0.0

    async def _score(
        self, verifier: Verifier, node: Node, steps: list[str], new: int, reserved: dict[Node, float]
    ) -> None:
        try:
            if new == 0:  # white space alone
                node.scores = []
                return
            scores = await verifier.score(self.problem.prompt, steps, node.scored_from, node.finished)
            if not all(map(math.isfinite, scores.values)):
                raise UserError(f"problem {self.problem.id}: the reward model scored a step with {scores.values}")
            node.scores = scores.values
            self.usage += self.setting.pricing.judging(scores.calls, new)
        except TooLong as error:
            self._too_long.append(error)
            self.usage += self.setting.pricing.judging(error.calls)
        finally:
            self._settle(reserved.pop(node))

    def value(self, node: Node, aggregation: Aggregation | None = None) -> float:
        """A scored node's trajectory as one number (default: the verifier's own aggregation)."""
        if aggregation is None:
            assert self.setting.verifier is not None
            aggregation = self.setting.verifier.aggregation
        return aggregate(node.step_scores, aggregation)

    def answer(self, node: Node) -> str | None:
        """The final answer that a trajectory gives, if it gives one."""
        return self.setting.extract(node.completion)

    async def group(self, nodes: Sequence[Node]) -> list[int]:
        """Sorts trajectories by their answers: the index of the first with an equal answer, -1 for no answer."""
        return await self.setting.group([self.answer(node) for node in nodes])

    def best(self, aggregation: Aggregation | None = None) -> Node | None:
        """The best trajectory so far: what a search cut off by its budget returns; None before the first token.

        Finished ones come before unfinished ones, scored before unscored; then by score, log-probability, length.
        """

        def rank(node: Node) -> tuple[bool, bool, float, float, int]:
            scored = node.scored and bool(node.step_scores)
            score = self.value(node, aggregation) if scored else 0.0
            logprob = node.logprob()
            return node.finished, scored, score, -float("inf") if logprob is None else logprob, node.length

        # of equals the first is the best, in an order that does not depend on when each came
        return max(sorted(self._final or self._partial, key=self._place), key=rank, default=None)

    def solution(self, chosen: Node | None) -> Solution:
        """The search's result: `chosen` and all completed trajectories, with everything that was spent."""
        leaves = sorted(self._final, key=self._place)
        if chosen is not None and chosen not in leaves:
            leaves.append(chosen)
        discarded = self.usage.generated - (chosen.sampled if chosen else 0)
        usage = replace(self.usage, discarded=discarded, dollars=self.setting.pricing.dollars(self.usage))
        if self._trace is not None:
            self._trace.chosen(chosen)
        return Solution(
            problem_id=self.problem.id,
            level=self.problem.level,
            reference=self.problem.answer,
            answer=self.answer(chosen) if chosen else None,
            finished=chosen is not None and chosen.finished,
            chosen=leaves.index(chosen) if chosen else None,
            candidates=[self._candidate(leaf) for leaf in leaves],
            usage=usage,
            seconds=time.monotonic() - self._start,
            note=f"{len(self._too_long)} times not scored: {self._too_long[0]}" if self._too_long else None,
        )

    def _candidate(self, node: Node) -> Candidate:
        text = node.completion
        return Candidate(
            address=node.address,
            tokens=[token for part in node.trajectory for token in part.tokens],
            num_tokens=node.length,
            text=text,
            answer=self.setting.extract(text),
            finished=node.finished,
            steps=split_steps(text, self.setting.delimiter),
            scores=node.step_scores if node.scored else None,
            logprob=node.logprob(),
        )

    def _place(self, node: Node) -> tuple[int, tuple[int, ...]]:
        """Orders nodes by their addresses, the problem's own first and then each conversation as it was opened."""
        root = node.root
        return (1 + list(self._conversations).index(root.index) if root.index else 0), node.address

    def _complete_steps(self, node: Node | None) -> int:
        """How many steps ended in this node or before; one cut off in its middle goes on in the child."""
        text = node.completion if node is not None else ""
        steps = split_steps(text, self.setting.delimiter)
        return len(steps) - bool(steps and node is not None and node.finish == "length")

    def room(self, node: Node) -> int:
        """Tokens that still fit behind a node."""
        in_context = self.setting.generator.max_context - len(node.root.tokens)
        return min(self.setting.sampling.max_tokens, in_context) - node.length

    @property
    def _deadline(self) -> float | None:
        budget = self.setting.budget
        return self._start + budget.amount if budget and budget.unit == "seconds" else None

    def price(self, node: Node, tokens: int, *, ahead: int = 0) -> float:
        """What a completion of so many tokens, `ahead` ones behind the node, takes off the budget without a cache."""
        match self.unit:
            case None | "prm" | "seconds":
                return 0.0
            case "tokens":
                return tokens
            case unit:
                return self.setting.pricing.price(unit, self._call(node, tokens, ahead))

    def _call(self, node: Node, tokens: int, ahead: int = 0) -> Call:
        return Call(self.setting.generator.spec, node.root.num_tokens + node.length + ahead, 0, tokens)

    async def _reserve(self, nodes: Sequence[Node], limits: list[int], n: int) -> tuple[list[int], float]:
        """Takes `n` completions of each node off the budget before they are sent.

        Returns the token limits they are cut to, and what was taken. Where the budget falls short while other calls
        are in flight it waits for what they give back, so that concurrent calls are cut no shorter than successive
        ones.
        """

        def price() -> float:
            return n * sum(self.price(node, limit) for node, limit in zip(nodes, limits, strict=True))

        wanted = price()
        while self.left < wanted and self._in_flight:
            await self._settlement()
        if self.left < wanted:
            share = self.left / (n * len(nodes))
            limits = [self._tokens_for(share, node, limit) for node, limit in zip(nodes, limits, strict=True)]
            wanted = price()
        if min(limits) < 1 or self.left <= 0:
            raise BudgetSpent
        self._take(wanted)
        return limits, wanted

    def _tokens_for(self, amount: float, node: Node, most: int) -> int:
        """How many tokens, `most` at most, a completion may have for this much of the budget."""
        match self.unit:
            case "flops" | "eflops" | "dollars" as unit:
                return self.setting.pricing.affordable(unit, amount, self._call(node, most))
        return min(most, int(amount))

    def _take(self, amount: float) -> None:
        self._reserved += amount
        self._in_flight += amount > 0

    def _settle(self, amount: float) -> None:
        """Gives a reservation back, after what came of it was charged."""
        self._in_flight -= amount > 0
        self._reserved = self._reserved - amount if self._in_flight else 0.0  # no rest of rounding
        self._settled.set()

    async def _settlement(self) -> None:
        """Waits for a call in flight to give back what it did not need."""
        self._settled.clear()
        await self._settled.wait()


def straddles(stop: str, delimiter: str) -> bool:
    """Whether a stop string can lie across the end of a step: each step is a request, which looks at its own text."""
    if stop == delimiter:
        return False
    return delimiter in stop[:-1] or any(delimiter.endswith(stop[:size]) for size in range(1, len(stop)))


def address_seed(seed: int, problem: str, address: tuple[int, ...]) -> int:
    """The seed of a node's first child in (run seed, problem, address): the same whatever else was drawn, or when."""
    digest = hashlib.blake2b(repr((seed, problem, address)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 2
