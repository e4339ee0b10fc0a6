"""The vLLM generator: one continuously batched engine that all problems share."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from infer.engine import Engine
from infer.generate.base import Completion, Message, Request, check_tokenizer, encode_chat, gather_or_cancel
from infer.generate.text import PARTIAL, Detokenizer, encode_within, last_tokens
from infer.tree import Finish

MAX_CHARACTER_TOKENS = 4
"""A character has at most four bytes, and a token at least one."""


class VLLMGenerator:
    """Completions from an `infer.engine` engine.

    Each completion is a request of its own, so that its share of the prefix cache is known exactly; siblings find the
    prompt in the cache that the first of them fills.
    """

    def __init__(self, engine: Engine) -> None:
        check_tokenizer(engine.tokenizer)
        self._engine = engine
        self.max_context = engine.max_context
        self.spec = engine.spec

    async def encode(self, messages: Sequence[Message]) -> list[int]:
        return encode_chat(self._engine.tokenizer, messages)

    async def tokenize(self, text: str) -> list[int]:
        return encode_within(self._engine.tokenizer, text)

    async def generate(self, request: Request) -> list[Completion]:
        prompt = request.prompt
        assert not isinstance(prompt, str), "vLLM continues token ids"
        outputs = await gather_or_cancel(
            self._engine.submit(prompt, self._params(request, request.seed + i), request.deadline)
            for i in range(request.n)
        )
        return [self._completion(output, request) for output in outputs]

    def _params(self, request: Request, seed: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        greedy = sampling.temperature == 0
        stop = [*sampling.stop, *([request.delimiter] if request.delimiter else [])]
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=None if greedy else seed,
            stop=stop,
            include_stop_str_in_output=True,
            max_tokens=request.max_tokens,
            logprobs=0 if request.logprobs else None,
            skip_clone=True,  # vLLM would copy it deeply; nobody else holds it
            output_kind=RequestOutputKind.FINAL_ONLY if request.deadline is None else RequestOutputKind.CUMULATIVE,
        )

    def _completion(self, output: Any, request: Request) -> Completion:
        if output is None:  # nothing by the deadline
            return Completion([], 0, "", "length", [] if request.logprobs else None, 0, 0)
        sample = output.outputs[0]
        prompt, tokens = output.prompt_token_ids, list(sample.token_ids)
        text, finish = self._text(prompt, tokens, sample, _finish(sample, request))
        logprobs = None
        if request.logprobs:
            logprobs = [position[token].logprob for token, position in zip(tokens, sample.logprobs, strict=True)]
        cached = output.num_cached_tokens or 0
        return Completion(tokens, len(tokens), text, finish, logprobs, len(prompt) - cached, cached)

    def _text(self, prompt: list[int], tokens: list[int], sample: Any, finish: Finish) -> tuple[str, Finish]:
        """The text of whole tokens, and why it ended; vLLM's own but for two cases.

        vLLM cuts the text where a stop string ends, while the token that completes it may go on. And behind a prompt
        that ends within a character (cut there by a limit) it puts the prompt's text before the completion's, where
        it even finds stop strings (vLLM 0.32): then the text is decoded anew, and a stop that is not in it is none.
        """
        decode = partial(self._engine.tokenizer.decode, skip_special_tokens=True)
        stop = sample.stop_reason
        if decode(prompt[-MAX_CHARACTER_TOKENS:]).endswith(PARTIAL):
            detokenizer = Detokenizer(decode, prompt)
            for token in tokens:
                detokenizer.add(token)
            return detokenizer.text, finish if not isinstance(stop, str) or stop in detokenizer.text else "length"
        if isinstance(stop, str):
            # one token more than the stop can have: a decoder drops the space that a text begins with
            tail = decode(last_tokens(decode, tokens, MAX_CHARACTER_TOKENS * len(stop) + 1))
            return sample.text + tail.partition(stop)[2].rstrip(PARTIAL), finish
        return sample.text, finish

    @property
    def engine(self) -> Engine:
        """The engine, for a verifier that judges with the same model."""
        return self._engine

    def describe(self) -> dict[str, Any]:
        return {"backend": "vllm", **self._engine.describe()}

    async def close(self) -> None:
        await self._engine.close()


def _finish(sample: Any, request: Request) -> Finish:
    if sample.finish_reason not in (None, "stop", "length"):
        raise RuntimeError(f"vLLM ended a request with {sample.finish_reason!r}")
    if sample.finish_reason != "stop":
        return "length"  # max_tokens; None: not finished by the deadline
    return "step" if request.delimiter is not None and sample.stop_reason == request.delimiter else "end"
