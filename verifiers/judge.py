"""Generative reward models: a language model writes a critique, then its verdict.

The score is P(yes) / (P(yes) + P(no)) where the verdict stands, read from the model's own logits (not from what it
happened to sample), and averaged over critiques drawn in parallel, which are charged.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infer.core.generator import Generator, Message, Request, Sampling
from infer.core.pricing import Call
from infer.core.tasks import gather_or_cancel
from infer.core.verifier import Scores
from infer.errors import TooLong
from infer.verifiers.chat import Chat


@dataclass(frozen=True, slots=True)
class Form:
    """How a family's judge writes: `opening` is put into its mouth, and it writes until `end`.

    `answers` says that its verdicts are the assistant's messages of one conversation: each then begins as those do in
    the history that it becomes, otherwise after the template's generation prompt. `end` is put there too where it does
    not come by itself; then follows `verdict`, and one token of `pair`, the words for correct and wrong.
    """

    opening: str
    end: str
    verdict: str
    pair: tuple[str, str]
    answers: bool = False


class Judge:
    """Critiques and verdicts of one model."""

    def __init__(self, generator: Generator, form: Form, sampling: Sampling, chains: int) -> None:
        self._generator = generator
        self._form = form
        self._sampling = sampling
        self._chains = chains
        self._reader = generator.reader(form.pair)
        self._chat = Chat(self._reader.tokenizer)
        self.spec = generator.spec

    def most(self, judgements: int) -> list[Call]:
        """The requests of so many judgements at most: each critique as long as it may be, after a full context."""
        context, written = self._generator.max_context, self._sampling.max_tokens
        calls = [Call(self.spec, context, 0, written), *self._reader.most([context])]
        return calls * (judgements * self._chains)

    async def judge(self, messages: Sequence[Message], **places: object) -> tuple[str, Scores]:
        """The first critique, opening and end included, and the mean verdict.

        `places` fill the opening. Seeds come from the prompt: asked again, it answers the same.
        Raises TooLong where the context has no room for a critique, UserError where the chat template is unfit.
        """
        form = self._form
        opening = form.opening.format(**places)
        chat = self._chat.before_answer(messages) if form.answers else self._chat.text(messages)
        prompt = self._chat.encode(chat + opening)
        end, verdict = await self._ids(form.end), await self._ids(form.verdict)
        room = self._reader.max_context - len(prompt) - len(end) - len(verdict)
        if room <= 0:
            raise TooLong(
                f"a solution of {len(prompt)} tokens leaves a judge with a context of {self._reader.max_context} "
                "no room to write"
            )
        request = Request(
            prompt,
            self._sampling,
            min(room, self._sampling.max_tokens),
            n=self._chains,
            seed=int.from_bytes(hashlib.blake2b(repr(prompt).encode(), digest_size=7).digest()),
            delimiter=form.end.lstrip(),
        )
        critiques = await self._generator.generate(request)
        calls = [Call(self.spec, c.prefill, c.cached, c.num_tokens) for c in critiques]
        reading = []
        for critique in critiques:
            # the model's own end token is taken back where it stopped before it came to its verdict
            written = critique.tokens[:-1] if critique.finish == "end" else critique.tokens
            tokens = [*prompt, *written, *([] if critique.finish == "step" else end), *verdict]
            reading.append(self._reader.read(tokens, [len(tokens)]))
        total = sum(await gather_or_cancel(reading), Scores([], calls))
        first = opening + critiques[0].text + ("" if critiques[0].finish == "step" else form.end)
        word = form.pair[0] if total.values[0] >= 0.5 else form.pair[1]
        mean = sum(total.values) / len(total.values)
        return first + form.verdict + word, Scores([mean], total.calls)

    async def _ids(self, text: str) -> list[int]:
        ids = await self._generator.tokenize(text)
        assert isinstance(ids, list)  # it shares its tokens with the reader, so it is no server
        return ids

    def describe(self) -> dict[str, Any]:
        sampling = {"chains": self._chains, "temperature": self._sampling.temperature}
        return {**sampling, "max_tokens": self._sampling.max_tokens, **self._generator.describe()}

    async def close(self) -> None:
        await self._generator.close()
