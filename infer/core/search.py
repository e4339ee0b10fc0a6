"""The view that a strategy has of one problem: sampling, scoring, randomness and the budget."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from infer.core import choice
from infer.core.choice import Ballot
from infer.core.generator import Completion, Generator, Message, Request, Sampling
from infer.core.grading import Grader, Tester
from infer.core.ledger import Budget, Ledger
from infer.core.options import Options, ScoredOptions
from infer.core.pricing import Call, Pricing
from infer.core.problem import Problem
from infer.core.scoring import Scorer
from infer.core.solution import Candidate, Solution
from infer.core.tasks import gather_or_cancel
from infer.core.trace import Watch
from infer.core.tree import Finish, Node, Prompt, address_seed, aggregate, conversation_index, split_steps, straddles
from infer.core.usage import Usage
from infer.core.verifier import Verifier, not_scored
from infer.cost.hardware import HARDWARE
from infer.errors import BudgetSpent, UserError

Until = Literal["step", "end"]


@dataclass(frozen=True, slots=True)
class Setting:
    """All that the searches of a run share."""

    generator: Generator
    verifier: Verifier | None
    grader: Grader
    sampling: Sampling
    budget: Budget | None = None
    seed: int = 0
    delimiter: str = "\n\n"
    """Ends a step; a property of the model's profile."""
    step_tokens: int = 512
    """Maximum tokens per step."""
    pricing: Pricing = field(default_factory=lambda: Pricing(HARDWARE["h100"]))
    watch: Callable[[Problem, Node], Watch] = Watch
    """Makes the observer of a search from its problem and root."""


class Search:
    """One problem being solved. Written for one strategy running alone; the engines below batch all of them."""

    def __init__(
        self, setting: Setting, problem: Problem, messages: Sequence[Message], root: Node, options: Options
    ) -> None:
        self.setting = setting
        self.problem = problem
        self.messages = messages
        """The chat that puts the problem to the model."""
        self.root = root
        self.rng = np.random.default_rng(address_seed(setting.seed, problem.id, ()))
        self.ledger = Ledger(setting.budget, setting.pricing)
        own = options.aggregation if isinstance(options, ScoredOptions) else None
        self._aggregation = own or (setting.verifier.aggregation if setting.verifier else "last")
        self._logprobs = options.needs_logprobs
        self._final: list[Node] = []
        self._partial: list[Node] = []
        self._conversations: dict[int, Node] = {}
        self._asides: set[Node] = set()
        if self.room(root) <= 0:
            raise UserError(
                f"problem {problem.id}: its prompt of {len(root.tokens)} tokens leaves no room in the model's context "
                f"of {setting.generator.max_context}: shorten it or raise --max-context"
            )
        unit = self.ledger.unit
        if unit is not None and unit.measure is not None and not root.tokens:
            raise UserError(f"a budget of {unit.name} needs a server that returns token ids: give it in tokens")
        self._watch = setting.watch(problem, root)
        self._scorer = (
            Scorer(setting.verifier, problem, setting.delimiter, self.ledger, self._watch) if setting.verifier else None
        )

    @classmethod
    async def open(
        cls, setting: Setting, problem: Problem, messages: Sequence[Message], options: Options | None = None
    ) -> "Search":
        """The search of a problem that this chat puts to the model."""
        root = Node.of_prompt(await setting.generator.encode(messages))
        return cls(setting, problem, messages, root, options or Options())

    @property
    def bounded(self) -> bool:
        """Whether there is a budget."""
        return self.ledger.unit is not None

    @property
    def left(self) -> float:
        """The rest of the budget, in its own unit, less what calls in flight reserve; infinite without a budget."""
        return self.ledger.left

    def until_spent(self) -> AbstractContextManager[None]:
        """A block that ends where the budget is spent."""
        return suppress(BudgetSpent)

    def affordable(self, node: Node, tokens: int | None = None) -> int | None:
        """How many completions of `node`, of so many tokens or to their limit, the budget covers; None: any number.

        One score of each is set aside where scoring takes from the budget.
        """
        tokens = self.room(node) if tokens is None else tokens
        each = self.price(node, tokens)
        if (verifier := self.setting.verifier) is not None:
            whole = Call(verifier.spec, node.root.num_tokens + node.length + tokens, 0, 0, executions=1)
            each += self.ledger.price_of_scores([whole], passes=1)
        return int(self.left / each) if each else None

    def price(self, node: Node, tokens: int, *, ahead: int = 0) -> float:
        """The price of a completion of so many tokens, `ahead` tokens after the node, if nothing is cached."""
        return self.ledger.price(self._call(node, tokens, ahead))

    def room(self, node: Node) -> int:
        """How many tokens fit after a node."""
        in_context = self.setting.generator.max_context - len(node.root.tokens)
        return min(self.setting.sampling.max_tokens, in_context) - node.length

    def limit(self, node: Node, until: Until) -> int:
        """How many tokens a sample of a node may have: those of a step, or all that fit."""
        return min(self.room(node), self._longest(until))

    async def sample(
        self,
        nodes: Node | Sequence[Node],
        n: int = 1,
        *,
        until: Until = "step",
        delimiter: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> list[Node]:
        """Grows `n` children of each node: one step each, or the whole rest.

        Children come node by node, in the order of their seeds. They end at `delimiter`, kept in their text, if it is
        given (finish "step"), and after `max_tokens` (at least 1). The budget is reserved before anything is sent.
        Where it does not cover the limits it is shared equally: children may be cut short (finish "length"), but never
        overshoot. Raises BudgetSpent when not even one token each is left.
        """
        nodes = [nodes] if isinstance(nodes, Node) else nodes
        if until not in ("step", "end"):
            raise ValueError(f"until is 'step' or 'end': {until!r}")
        if n < 1 or (max_tokens is not None and max_tokens < 1):
            raise ValueError(f"n and max_tokens are at least 1: {n}, {max_tokens}")
        if not nodes:
            return []
        sampling = self.setting.sampling
        if temperature is not None:
            sampling = replace(sampling, temperature=temperature)
        if until == "step":
            delimiter = self.setting.delimiter if delimiter is None else delimiter
            if stop := next((stop for stop in sampling.stop if straddles(stop, delimiter)), None):
                raise UserError(
                    f"--stop {stop!r} may begin in one step and end in the next, where it is missed: name one without "
                    f"the delimiter {delimiter!r} and without its end at the beginning, or another --delimiter"
                )
        rooms = [self.room(node) for node in nodes]
        assert all(room > 0 for room in rooms), "a final node has no children"
        longest = self._longest(until) if max_tokens is None else max_tokens
        calls = [self._call(node, min(room, longest)) for node, room in zip(nodes, rooms, strict=True)]
        children = []
        async with self.ledger.reserve(calls, n) as limits:
            first, requests = [], []
            for node, limit in zip(nodes, limits, strict=True):
                request = Request(
                    prompt=node.prefix(),
                    sampling=sampling,
                    max_tokens=limit,
                    n=n,
                    seed=address_seed(self.setting.seed, self.problem.id, node.address) + node.num_children,
                    delimiter=delimiter,
                    logprobs=self._logprobs,
                    deadline=self.ledger.deadline,
                )
                requests.append(request)
                first.append(node.num_children)
                node.num_children += n
            grown = await gather_or_cancel(self.setting.generator.generate(request) for request in requests)
            for node, start, room, completions in zip(nodes, first, rooms, grown, strict=True):
                for index, done in enumerate(completions, start):
                    self._charge(done)
                    full = done.num_tokens >= room
                    child = Node(node, index, done.tokens, done.num_tokens, done.text, done.finish, full, done.logprobs)
                    children.append(child)
        for child in children:
            self._keep(child)
        self._watch.sampled(children, self.left)
        return children

    async def tokenize(self, text: str) -> Prompt:
        """Token ids of a text continued mid-completion; the text itself where the server has no ids."""
        return await self.setting.generator.tokenize(text)

    async def extend(self, node: Node, text: str, *, without: str = "") -> Node:
        """A child that holds this text instead of sampled tokens: not generated, but part of the trajectory.

        First removes the end token, and a trailing `without`, from `node`; the child is attached to that shortened
        copy. Raises UserError where `without` is merged into a token.
        """
        if node.parent is not None and (node.finished or (without and node.text.endswith(without))):
            node = await self._without_its_end(node, without)
        forced = await self.tokenize(text)
        tokens = [] if isinstance(forced, str) else forced
        finish: Finish = "step" if text.endswith(self.setting.delimiter) else "length"
        full = len(tokens) >= self.room(node)
        child = node.child(
            tokens=tokens, num_tokens=len(tokens), text=text, finish=finish, full=full, logprobs=[], forced=True
        )
        self._keep(child)
        self._watch.sampled([child], self.left)
        return child

    async def chat(self, messages: Sequence[Message], *, answers: bool = False) -> Node:
        """The root of another conversation about the problem: a critique, a comparison, a rewriting.

        Its samples are charged like all others, and are candidates for the answer only with `answers`. The same
        messages open the same conversation. The root is final where the prompt leaves no room in the model's context.
        """
        prompt = await self.setting.generator.encode(messages)
        name = conversation_index(prompt)
        if name not in self._conversations:
            root = Node.of_prompt(prompt, name)
            root.full = self.room(root) <= 0
            self._conversations[name] = root
            if not answers:
                self._asides.add(root)
            self._watch.opened(root)
        return self._conversations[name]

    def prune(self, nodes: Iterable[Node]) -> None:
        """Reports, for the trace, that the search goes on without these nodes."""
        self._watch.pruned(nodes)

    async def score(self, nodes: Sequence[Node]) -> None:
        """Asks the verifier for the scores that the trajectories up to these nodes lack, and stores them on the nodes.

        A budget that can't cover all of them is spent on the first; then, as whenever nothing is left, BudgetSpent is
        raised. A token budget never blocks scoring: tokens already generated may always be scored. A trajectory that
        exceeds the verifier's context stays without scores, and the solution says so.
        """
        if self._scorer is None:
            raise UserError(
                "this strategy needs a process reward model: name one with --prm (an own strategy also has to say so: "
                "needs_verifier of its options)"
            )
        await self._scorer.score(nodes)

    def value(self, node: Node) -> float | None:
        """The trajectory's scores as one number; None for one without scores, or without a step to score."""
        scores = node.step_scores if node.scored else None
        return aggregate(scores, self._aggregation) if scores else None

    def scored_steps(self, node: Node) -> list[tuple[str, float]]:
        """A scored trajectory's steps, each with its score; none where the verifier scores the whole at once."""
        verifier = self.setting.verifier
        if verifier is None or not verifier.stepwise:
            return []
        return list(zip(split_steps(node.completion, self.setting.delimiter), node.step_scores, strict=True))

    def share_scores(self, node: Node, twin: Node) -> None:
        """Gives a node without scores those of a sibling of equal text."""
        if node.scores is None:
            node.scores, node.scored_from = twin.scores, twin.scored_from

    def answer(self, node: Node) -> str | None:
        """The final answer that a trajectory gives, if it gives one."""
        return self.setting.grader.extract(node.completion)

    async def group(self, nodes: Sequence[Node]) -> list[int]:
        """Sorts trajectories by their answers: the index of the first with an equal answer, -1 for no answer."""
        return await self.setting.grader.group(self.problem, [self.answer(node) for node in nodes])

    def tests(self, text: str) -> list[str]:
        """The tests that the model wrote in a text. Raises UserError where solutions are no programs."""
        return self._tester.tests(self.problem, text)

    async def passes(self, nodes: Sequence[Node], tests: Sequence[str]) -> list[list[bool]]:
        """For each node, which of the tests its answer passes: none without an answer.

        Each distinct answer is executed once for each test. Raises BudgetSpent where the budget does not cover all
        executions, or its deadline comes before they end; UserError where solutions are no programs.
        """
        answers = [self.answer(node) for node in nodes]
        distinct = list(dict.fromkeys(answer for answer in answers if answer is not None))
        executions = len(distinct) * len(tests)
        with self.ledger.take_executions(executions):
            try:
                async with asyncio.timeout(self.ledger.remaining):
                    found = await self._tester.passes(self.problem, distinct, tests)
            except TimeoutError:
                raise BudgetSpent from None
            self.ledger.usage += Usage(executions=executions)
        rows = dict(zip(distinct, found, strict=True))
        return [[False] * len(tests) if answer is None else rows[answer] for answer in answers]

    @property
    def _tester(self) -> Tester:
        if not isinstance(self.setting.grader, Tester):
            raise UserError("tests choose among programs only: name an evaluation set of programs, such as humaneval")
        return self.setting.grader

    async def choose(
        self, nodes: Sequence[Node], how: choice.Choice, weights: Sequence[float] | None = None
    ) -> Node | None:
        """The trajectory that is the answer, by `infer.core.choice.pick`; `best()` where none of these counts."""
        groups = await self.group(nodes) if how in ("majority", "weighted") else None
        index = choice.pick([Ballot.of(node) for node in nodes], how, self._aggregation, groups, weights)
        return nodes[index] if index is not None else self.best()

    def best(self) -> Node | None:
        """The best trajectory so far: the result of a search cut off by its budget. None before the first token."""
        # of equals the first is the best, in an order that does not depend on when each came
        nodes = sorted(self._final or self._partial, key=self._place)
        index = choice.best([Ballot.of(node) for node in nodes], self._aggregation)
        return nodes[index] if index is not None else None

    def solution(self, chosen: Node | None) -> Solution:
        """The search's result: `chosen` and all completed trajectories, with everything that was spent."""
        leaves = sorted(self._final, key=self._place)
        if chosen is not None and chosen not in leaves:
            leaves.append(chosen)
        usage = self.ledger.usage
        discarded = usage.generated - (chosen.sampled if chosen else 0)
        self._watch.chosen(chosen)
        return Solution(
            problem_id=self.problem.id,
            level=self.problem.level,
            reference=self.problem.answer,
            also=self.problem.also,
            choices=self.problem.choices,
            answer=self.answer(chosen) if chosen else None,
            finished=chosen is not None and chosen.finished,
            chosen=leaves.index(chosen) if chosen else None,
            candidates=[Candidate.of(leaf, self.answer(leaf), self.setting.delimiter) for leaf in leaves],
            usage=replace(usage, discarded=discarded, dollars=self.setting.pricing.dollars(usage)),
            seconds=self.ledger.seconds,
            note=not_scored(list(self._scorer.too_long.values())) if self._scorer else None,
        )

    def _longest(self, until: Until) -> int:
        return self.setting.step_tokens if until == "step" else self.setting.sampling.max_tokens

    def _call(self, node: Node, tokens: int, ahead: int = 0) -> Call:
        return Call(self.setting.generator.spec, node.root.num_tokens + node.length + ahead, 0, tokens)

    def _charge(self, done: Completion) -> None:
        call = Call(self.setting.generator.spec, done.prefill, done.cached, done.num_tokens)
        self.ledger.usage += self.setting.pricing.usage(call)

    def _keep(self, node: Node) -> None:
        if node.root not in self._asides:
            (self._final if node.final else self._partial).append(node)

    async def _without_its_end(self, node: Node, without: str) -> Node:
        """A sibling with the node's text but for its end token, or the string `without` at its end."""
        assert node.parent is not None
        tokens, text = node.tokens, node.text
        if without and text.endswith(without):
            text = text.removesuffix(without)
            end = await self.tokenize(without)
            if isinstance(end, list):
                if tokens[-len(end) :] != end:
                    raise UserError(f"{without!r} is not a token of its own in this model's vocabulary")
                tokens = tokens[: -len(end)]
        elif not any(text.endswith(stop) for stop in self.setting.sampling.stop):
            tokens = tokens[:-1]
        logprobs = node.logprobs[: len(tokens)] if node.logprobs is not None else None
        num_tokens = len(tokens) if node.tokens else node.num_tokens
        copy = node.parent.child(tokens=tokens, num_tokens=num_tokens, text=text, finish="length", logprobs=logprobs)
        self._watch.sampled([copy], self.left)
        return copy

    def _place(self, node: Node) -> tuple[int, tuple[int, ...]]:
        """Orders nodes by their addresses, the problem's own first and then each conversation as it was opened."""
        root = node.root
        return (1 + list(self._conversations).index(root.index) if root.index else 0), node.address
