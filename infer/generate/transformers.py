"""The generator without vLLM: plain transformers. The reference for the others, and the fallback where vLLM can't run.

Requests that wait are drained into a batch, prompt by prompt: a prompt is prefilled once, padded on the left, and its
cache copied to each of its completions. Rows that end leave the batch; new ones wait for the next. The loop
runs in the event loop and lets others run between forward passes, so that cancellation and deadlines act at the next
token. Each row draws from its own seed: what stands beside it changes the result by nothing but the noise of batching.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from infer.core.generator import Completion, Message, Request, room_after
from infer.core.reader import Reader
from infer.core.tree import Finish
from infer.cost.config import known_spec
from infer.errors import UserError
from infer.generate.chat import encode_chat
from infer.generate.checkpoint import not_numbers
from infer.generate.loading import load_causal
from infer.generate.readers import TransformersTokens
from infer.generate.sampling import Sampler
from infer.generate.text import Detokenizer, encode_within, first_stop


@dataclass(eq=False, slots=True)
class _Row:
    """One completion in the making."""

    prompt: tuple[int, ...]
    request: Request
    limit: int
    """Tokens it may have: `max_tokens`, or what the context has room for."""
    seed: int
    text: Detokenizer
    done: asyncio.Future[Completion]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    prefill: int = 0
    cached: int = 0

    def take(self, token: int, logprob: float, end: frozenset[int]) -> None:
        """Add a token, and finish if it ends the completion."""
        if self.done.done():  # cancelled
            return
        self.tokens.append(token)
        self.logprobs.append(logprob)
        start = len(self.text.text)
        delimiter, stops = self.request.delimiter, self.request.sampling.stop
        stop = None
        if self.text.add(token) and (delimiter or stops):
            stop = first_stop(self.text.text, start, [delimiter, *stops] if delimiter else stops)
        if token in end:
            self.finish("end")
        elif stop is not None:
            self.finish("step" if stop == delimiter else "end")
        elif len(self.tokens) == self.limit:
            self.finish("length")

    def finish(self, why: Finish) -> None:
        if why == "end":
            self.text.flush()
        logprobs = self.logprobs if self.request.logprobs else None
        text, count = self.text.text, len(self.tokens)
        self.done.set_result(
            Completion(self.tokens, count, text, why, logprobs, prefill=self.prefill, cached=self.cached)
        )

    def running(self) -> bool:
        """Not finished, not cancelled. A row whose deadline has passed is finished here."""
        deadline = self.request.deadline
        if not self.done.done() and deadline is not None and time.monotonic() >= deadline:
            self.finish("length")
        return not self.done.done()


class _Batch:
    """Rows that are decoded together: their cache, the mask of its real positions, the logits of the next tokens."""

    def __init__(self, model: Any, rows: list[_Row]) -> None:
        self.rows = rows
        self._model = model
        self._sampler = Sampler()
        prompts = list(dict.fromkeys(row.prompt for row in rows))
        seen: set[tuple[int, ...]] = set()
        for row in rows:
            size = len(row.prompt)
            row.prefill, row.cached = (0, size) if row.prompt in seen else (size, 0)
            seen.add(row.prompt)

        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])  # [prompts, longest]
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        self._mask = mask.to(model.device)
        self._cache = transformers.DynamicCache(config=model.config)
        self._logits = self._forward(ids.to(model.device), (self._mask.cumsum(-1) - 1).clamp(min=0))
        self._select([prompts.index(row.prompt) for row in rows])

    def draw(self, end: frozenset[int]) -> None:
        """Give each row its next token."""
        rows = self.rows
        tokens = self._logits.argmax(-1)  # [rows]
        greatest = self._logits.gather(-1, tokens[:, None])[:, 0]  # NaN if any is: argmax finds it
        if self._drawn:
            at = torch.tensor(self._drawn, device=tokens.device)
            tokens[at] = self._sampler.draw(self._logits[at], (len(rows[i].tokens) for i in self._drawn))
        logprobs = [0.0] * len(rows)
        if any(row.request.logprobs for row in rows):
            logprobs = self._logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0].tolist()
        for row, token, logprob, logit in zip(rows, tokens.tolist(), logprobs, greatest.tolist(), strict=True):
            if math.isfinite(logit):
                row.take(token, logprob, end)
            elif not row.done.done():
                row.done.set_exception(not_numbers(self._model.name_or_path))

    def forward(self) -> None:
        """Let go of the rows that are done, and compute the others' next logits."""
        running = [i for i, row in enumerate(self.rows) if row.running()]
        if len(running) < len(self.rows):
            self.rows = [self.rows[i] for i in running]
            if not running:
                return
            self._select(running)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        last = torch.tensor([[row.tokens[-1]] for row in self.rows], device=self._mask.device)  # [rows, 1]
        self._logits = self._forward(last, self._mask.sum(-1, keepdim=True) - 1)

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Float32 logits [rows, vocabulary] after the last of `ids` [rows, tokens]."""
        with torch.inference_mode():
            output = self._model(
                input_ids=ids,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
            return output.logits[:, -1].float()

    def _select(self, rows: list[int]) -> None:
        """Keep these rows, as often as they are named."""
        at = torch.tensor(rows, device=self._mask.device)
        self._cache.batch_select_indices(at)
        self._mask, self._logits = self._mask[at], self._logits[at]
        self._drawn = [i for i, row in enumerate(self.rows) if row.request.sampling.temperature > 0]
        self._sampler.set_rows([(self.rows[i].request.sampling, self.rows[i].seed) for i in self._drawn], at.device)


class TransformersGenerator:
    """A `Generator` on a local folder or a hub model, with at most `max_batch` completions in a batch."""

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str = "auto",
        device: str | None = None,
        max_batch: int = 64,
        revision: str | None = None,
        max_context: int | None = None,
    ) -> None:
        """Load. `dtype` is a torch name such as `float32`, or the checkpoint's. Raises UserError if it can't be.

        `max_context` (tokens) is the model's own, or less.
        """
        self.model = str(model)
        self.max_batch = max_batch
        self._model, self._tokenizer = load_causal(model, dtype=dtype, revision=revision, device=device)
        self._revision = getattr(self._model.config, "_commit_hash", None) or revision
        self._end = _end_tokens(self._model, self._tokenizer)
        most: int = self._model.config.get_text_config().max_position_embeddings
        if max_context is not None and max_context > most:
            raise UserError(f"model {model} has a context of {most} tokens: a --max-context of {max_context} is more")
        self.max_context = max_context or most
        self.spec = known_spec(self._model.config, str(self._model.dtype).removeprefix("torch."), str(model))
        self._queue: deque[_Row] = deque()
        self._batched: list[_Row] = []
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def encode(self, messages: Sequence[Message]) -> list[int]:
        return encode_chat(self._tokenizer, messages)

    async def tokenize(self, text: str) -> list[int]:
        return encode_within(self._tokenizer, text)

    async def generate(self, request: Request) -> list[Completion]:
        """See `Generator.generate`. Raises UserError: no room after the prompt, NaN; RuntimeError: the model failed."""
        if self._closed:
            raise RuntimeError(f"{self.model} is closed")
        prompt = self._tokenizer.encode(request.prompt) if isinstance(request.prompt, str) else request.prompt
        room = room_after(prompt, self.max_context, self.model)
        limit, loop = min(request.max_tokens, room), asyncio.get_running_loop()
        rows = [
            _Row(
                tuple(prompt),
                request,
                limit,
                request.seed + i,
                Detokenizer(self._decode, prompt),
                loop.create_future(),
            )
            for i in range(request.n)
        ]
        self._queue.extend(rows)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            return await asyncio.gather(*(row.done for row in rows))
        finally:
            for row in rows:
                row.done.cancel()

    def reader(self, pair: tuple[str, str]) -> Reader:
        return TransformersTokens(self._model, self._tokenizer, pair)

    def describe(self) -> dict[str, Any]:
        """Backend, model with revision, dtype, device, the attention really used, versions."""
        return {
            "backend": "transformers",
            "model": self.model,
            "revision": self._revision,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": str(self._model.device),
            "attention": self._model.config._attn_implementation,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "max_context": self.max_context,
        }

    async def close(self) -> None:
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
        for row in [*self._queue, *self._batched]:
            if not row.done.done():
                row.done.set_exception(RuntimeError(f"{self.model} was closed"))
        self._queue.clear()
        self._batched = []
        self._model = self._model.to("meta")  # frees the weights; `describe` still answers

    async def _work(self) -> None:
        """Batch after batch until nobody waits. A batch that fails fails all of its rows, and no other."""
        while rows := self._next_batch():
            self._batched = rows
            try:
                batch = _Batch(self._model, rows)
                while batch.rows:
                    batch.draw(self._end)
                    await asyncio.sleep(0)
                    batch.forward()
            except Exception as error:
                for row in rows:
                    if not row.done.done():
                        failure = RuntimeError(f"{self.model} failed: {type(error).__name__}: {error}")
                        failure.__cause__ = error
                        row.done.set_exception(failure)
            self._batched = []

    def _next_batch(self) -> list[_Row]:
        rows: list[_Row] = []
        while self._queue and len(rows) < self.max_batch:
            row = self._queue.popleft()
            if row.running():
                rows.append(row)
        return rows

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a completion: the tokenizer's end token and all that the generation config names."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*ids, tokenizer.eos_token_id] if token is not None)
