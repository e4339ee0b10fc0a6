"""The vLLM generator: one continuously batched engine that all problems share."""

import copy
import math
from collections.abc import Sequence
from typing import Any

from infer.core.generator import Completion, Message, Request, Sampling, room_after
from infer.core.reader import Reader
from infer.core.tasks import gather_or_cancel
from infer.core.tree import Finish
from infer.generate.chat import check_tokenizer, encode_chat
from infer.generate.checkpoint import not_numbers
from infer.generate.engine import Engine
from infer.generate.readers import VLLMTokens
from infer.generate.text import PARTIAL, Detokenizer, encode_within, last_tokens

MAX_CHARACTER_TOKENS = 4
"""A character has at most four bytes, and a token at least one."""


class VLLMGenerator:
    """Completions from an `infer.generate.engine` engine.

    Each completion is a request of its own, so that its share of the prefix cache is known exactly; siblings find the
    prompt in the cache that the first of them fills.
    """

    def __init__(self, engine: Engine) -> None:
        check_tokenizer(engine.tokenizer)
        self._engine = engine
        self.max_context = engine.max_context
        self.spec = engine.spec
        self._templates: dict[Any, Any] = {}
        self._pieces: dict[tuple[int, ...], str] = {}

    async def encode(self, messages: Sequence[Message]) -> list[int]:
        return encode_chat(self._engine.tokenizer, messages)

    async def tokenize(self, text: str) -> list[int]:
        return encode_within(self._engine.tokenizer, text)

    async def generate(self, request: Request) -> list[Completion]:
        prompt = request.prompt
        assert not isinstance(prompt, str), "vLLM continues token ids"
        room_after(prompt, self.max_context, self._engine.tokenizer.name_or_path)
        from infer.generate.draws import flawed

        params = [self._params(request, request.seed + i) for i in range(request.n)]
        outputs = await gather_or_cancel(self._engine.submit(prompt, each, request.deadline) for each in params)
        if self._engine.draws and any(map(flawed, params)):
            raise not_numbers(self._engine.tokenizer.name_or_path)
        return [self._completion(output, request) for output in outputs]

    def _params(self, request: Request, seed: int) -> Any:
        # made and checked once for each way to sample, and copied, as vLLM itself copies them for each request
        how = (request.sampling, request.delimiter, request.logprobs, request.deadline is None)
        if how not in self._templates:
            self._templates[how] = self._template(*how)
        params = copy.copy(self._templates[how])
        params.max_tokens = request.max_tokens
        drawn = sampling_options(self._engine, request.sampling, seed)
        params.seed, params.extra_args = drawn.get("seed"), drawn.get("extra_args")
        return params

    def _template(self, sampling: Sampling, delimiter: str | None, logprobs: bool, whole: bool) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            **sampling_options(self._engine, sampling, 0),
            stop=[*sampling.stop, *([delimiter] if delimiter else [])],
            include_stop_str_in_output=True,
            logprobs=0 if logprobs else None,
            skip_clone=True,  # vLLM would copy it deeply; nobody else holds it
            output_kind=RequestOutputKind.FINAL_ONLY if whole else RequestOutputKind.CUMULATIVE,
        )

    def _completion(self, output: Any, request: Request) -> Completion:
        if output is None:  # nothing by the deadline
            return Completion.nothing(logprobs=request.logprobs)
        sample = output.outputs[0]
        prompt, tokens = output.prompt_token_ids, list(sample.token_ids)
        text, finish = self._text(prompt, tokens, sample, _finish(sample, request))
        logprobs = None
        if request.logprobs:
            logprobs = [position[token].logprob for token, position in zip(tokens, sample.logprobs, strict=True)]
            if math.isnan(sum(logprobs)):
                raise not_numbers(self._engine.tokenizer.name_or_path)
        cached = output.num_cached_tokens or 0
        return Completion(tokens, len(tokens), text, finish, logprobs, prefill=len(prompt) - cached, cached=cached)

    def _text(self, prompt: list[int], tokens: list[int], sample: Any, finish: Finish) -> tuple[str, Finish]:
        """The text of whole tokens, and why it ended; vLLM's own but for two cases.

        vLLM cuts the text where a stop string ends, while the token that completes it may go on. And after a prompt
        that ends within a character (cut there by a limit) it puts the prompt's text before the completion's, and even
        finds stop strings there (vLLM 0.32). In that case we decode again, and ignore a stop string that does not occur
        in the new text.
        """
        stop, before = sample.stop_reason, self._piece(prompt[-1])
        if (not before or PARTIAL in before) and self._piece(*prompt[-MAX_CHARACTER_TOKENS:]).endswith(PARTIAL):
            detokenizer = Detokenizer(self._decode, prompt)
            for token in tokens:
                detokenizer.add(token)
            return detokenizer.text, finish if not isinstance(stop, str) or stop in detokenizer.text else "length"
        return sample.text + (self._behind(stop, tokens, sample.text) if isinstance(stop, str) else ""), finish

    def _behind(self, stop: str, tokens: list[int], text: str) -> str:
        """The rest of the token that completed a stop string: by the texts of single tokens, where they are enough."""
        pieces: list[str] = []
        for token in reversed(tokens):
            pieces.insert(0, self._piece(token))
            if PARTIAL in pieces[0] or len("".join(pieces[:-1])) >= len(stop) - 1:
                break
        head, met, rest = "".join(pieces).partition(stop)
        if PARTIAL in pieces[0] or not met or not text.endswith(head + met):
            # one token more than the stop can have: a decoder drops the space that a text begins with
            tail = self._decode(last_tokens(self._decode, tokens, MAX_CHARACTER_TOKENS * len(stop) + 1))
            rest = tail.partition(stop)[2].rstrip(PARTIAL)
        return rest

    def _piece(self, *tokens: int) -> str:
        """The text of a few tokens, remembered."""
        if tokens not in self._pieces:
            self._pieces[tokens] = self._decode(list(tokens))
        return self._pieces[tokens]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._engine.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def reader(self, pair: tuple[str, str]) -> Reader:
        return VLLMTokens(self._engine, pair)

    def describe(self) -> dict[str, Any]:
        return {"backend": "vllm", **self._engine.describe()}

    async def close(self) -> None:
        await self._engine.close()


def sampling_options(engine: Engine, sampling: Sampling, seed: int) -> dict[str, Any]:
    """How a request says to vLLM what its tokens are drawn from: options of `SamplingParams`."""
    if engine.draws:
        from infer.generate.draws import drawn

        return {"temperature": 0.0, "extra_args": drawn(sampling, seed)}
    if sampling.temperature == 0:
        return {"temperature": 0.0}
    return {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "min_p")} | {"seed": seed}


def _finish(sample: Any, request: Request) -> Finish:
    if sample.finish_reason not in (None, "stop", "length"):
        raise RuntimeError(f"vLLM ended a request with {sample.finish_reason!r}")
    if sample.finish_reason != "stop":
        return "length"  # max_tokens; None: not finished by the deadline
    return "step" if request.delimiter is not None and sample.stop_reason == request.delimiter else "end"
