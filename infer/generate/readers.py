"""Readers on vLLM and on transformers: a probability at chosen positions of a token sequence.

Whatever the head of a reward model looks like, it gives a log-odds at each position: the difference of two labels' or
two tokens' logits, or the one value of a head that was trained with a sigmoid. A family (`verifiers/qwen_prm.py` and
its neighbours) chooses the tokens and the positions; a reader does the rest.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from infer.core.pricing import Call
from infer.core.tasks import gather_or_cancel
from infer.core.verifier import Scores
from infer.cost.config import known_spec
from infer.cost.model import ModelSpec
from infer.errors import UserError
from infer.generate.chat import check_tokenizer
from infer.generate.engine import Engine


def sigmoid(log_odds: float) -> float:
    """The probability of a log-odds, in double precision: one a little above 0 or below 1 stays so.

    Not above 36.7: from there on all are 1.0, the nearest number there is, and their order is lost.
    """
    return 1 / (1 + math.exp(-log_odds)) if log_odds >= 0 else math.exp(log_odds) / (1 + math.exp(log_odds))


def log_odds(logits: Sequence[float]) -> float:
    """Of one label: its own logit. Of two (wrong, correct): the second over the first."""
    return logits[0] if len(logits) == 1 else logits[1] - logits[0]


def token_id(tokenizer: Any, text: str) -> int:
    """The one token that a text is. Raises UserError where it is none or several."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise UserError(
            f"{text!r} is {'unknown' if len(ids) == 1 else f'{len(ids)} tokens'} to the tokenizer of "
            f"{tokenizer.name_or_path} and has to be one token: the model is of another family, or unfit to judge"
        )
    return int(ids[0])


class VLLMHead:
    """A classification head in a pooling engine.

    Prefixes are requests of their own: the shorter one fills the cache that the longer one reads, so that a step which
    is new costs its own tokens.
    """

    def __init__(self, engine: Engine) -> None:
        """Raises UserError for an engine without a tokenizer."""
        check_tokenizer(engine.tokenizer)
        self._engine = engine
        self.tokenizer = engine.tokenizer
        self.max_context = engine.max_context
        self.spec = engine.spec

    def most(self, ends: Sequence[int]) -> list[Call]:
        return [Call(self.spec, end, 0, 0) for end in ends]

    async def read(self, tokens: list[int], ends: Sequence[int]) -> Scores:
        from vllm import PoolingParams

        outputs = await gather_or_cancel(
            self._engine.submit(tokens[:end], PoolingParams(task="classify", use_activation=False)) for end in ends
        )
        values = [sigmoid(log_odds(output.outputs.data.tolist())) for output in outputs]
        return Scores(values, [_call(self.spec, output, 0) for output in outputs])

    def describe(self) -> dict[str, Any]:
        return {"backend": "vllm", **self._engine.describe()}

    async def close(self) -> None:
        await self._engine.close()


class VLLMTokens:
    """The probability of one token over that of another, as the next one, in a generating engine.

    One token is sampled after each prefix, and its log-probabilities are read. vLLM counts that token, and so do we.
    """

    def __init__(self, engine: Engine, pair: tuple[str, str]) -> None:
        """Raises UserError for an engine without a tokenizer, or whose tokenizer lacks the tokens."""
        check_tokenizer(engine.tokenizer)
        self._engine = engine
        self._yes, self._no = (token_id(engine.tokenizer, token) for token in pair)
        self.tokenizer = engine.tokenizer
        self.max_context = engine.max_context - 1  # room for the sampled token
        self.spec = engine.spec

    def most(self, ends: Sequence[int]) -> list[Call]:
        return [Call(self.spec, end, 0, 1) for end in ends]

    async def read(self, tokens: list[int], ends: Sequence[int]) -> Scores:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        yes, no = self._yes, self._no
        params = SamplingParams(
            temperature=0,
            max_tokens=1,
            logprob_token_ids=[yes, no],
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        outputs = await gather_or_cancel(self._engine.submit(tokens[:end], params) for end in ends)
        values = []
        for output in outputs:
            (logprobs,) = output.outputs[0].logprobs
            values.append(sigmoid(logprobs[yes].logprob - logprobs[no].logprob))
        return Scores(values, [_call(self.spec, output, 1) for output in outputs])

    def describe(self) -> dict[str, Any]:
        return {"backend": "vllm", **self._engine.describe()}

    async def close(self) -> None:
        await self._engine.close()


def _call(spec: ModelSpec | None, output: Any, generated: int) -> Call:
    cached = output.num_cached_tokens or 0
    return Call(spec, len(output.prompt_token_ids) - cached, cached, generated)


class TransformersReader:
    """Whole sequences in one forward pass, read at all positions asked for: the reference, and where vLLM is not there.

    Nothing is kept from call to call. Waiting calls are drained into right-padded batches of at most `batch` (the
    models are causal, so padding on the right changes nothing).
    """

    def __init__(self, model: Any, tokenizer: Any, batch: int) -> None:
        self.tokenizer = tokenizer
        self.max_context: int = model.config.get_text_config().max_position_embeddings
        self.spec = known_spec(model.config, str(model.dtype).removeprefix("torch."), model.name_or_path)
        self._model = model
        self._batch = batch
        self._waiting: list[tuple[list[int], Sequence[int], asyncio.Future[Scores]]] = []
        self._loop: asyncio.Task[None] | None = None

    def most(self, ends: Sequence[int]) -> list[Call]:
        return [Call(self.spec, ends[-1], 0, 0)]

    async def read(self, tokens: list[int], ends: Sequence[int]) -> Scores:
        future: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        self._waiting.append((tokens[: ends[-1]], ends, future))
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # let those who are ready join
            batch = [call for call in self._waiting[: self._batch] if not call[2].done()]
            del self._waiting[: self._batch]
            if not batch:
                continue
            try:
                results = self._log_odds([tokens for tokens, _, _ in batch], [ends for _, ends, _ in batch])
            except Exception as error:
                for _, _, future in batch:
                    future.set_exception(RuntimeError(f"the reward model failed: {error}"))
                continue
            for (tokens, _, future), odds in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(Scores([sigmoid(x) for x in odds], [Call(self.spec, len(tokens), 0, 0)]))

    def _log_odds(self, sequences: list[list[int]], ends: list[Sequence[int]]) -> list[list[float]]:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {"backend": "transformers", "dtype": str(self._model.dtype).removeprefix("torch.")}

    async def close(self) -> None:
        for _, _, future in self._waiting:
            if not future.done():
                future.set_exception(RuntimeError("the reward model was closed"))
        self._waiting.clear()


class TransformersHead(TransformersReader):
    """A classification head: the model's `score`, of one label or two, on its last hidden states."""

    def __init__(self, model: Any, tokenizer: Any, batch: int = 64) -> None:
        """Raises UserError for a model without such a head: those that are not causal call it otherwise."""
        super().__init__(model, tokenizer, batch)
        if not hasattr(model, "score"):
            raise UserError(
                f"reward model {model.name_or_path} is a {type(model).__name__}, which has no `score` head: it has to "
                "be a causal model"
            )

    def _log_odds(self, sequences: list[list[int]], ends: list[Sequence[int]]) -> list[list[float]]:
        import torch

        width = max(map(len, sequences))
        ids = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens in sequences])  # [B, T]
        mask = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in sequences])
        device = self._model.device
        results = []
        with torch.inference_mode():
            output = self._model.base_model(ids.to(device), attention_mask=mask.to(device), use_cache=False)
            hidden = output.last_hidden_state  # [B, T, D]
            for row, at in zip(hidden, ends, strict=True):
                logits = self._model.score(row[[end - 1 for end in at]]).float()  # [positions, labels]
                results.append([log_odds(position) for position in logits.tolist()])
        return results


class TransformersTokens(TransformersReader):
    """The probability of one token over that of another, as the next one.

    One sequence at a time: logits of the whole vocabulary at hundreds of positions are much, and only the model's own
    `forward` knows how it scales or caps them.
    """

    def __init__(self, model: Any, tokenizer: Any, pair: tuple[str, str]) -> None:
        super().__init__(model, tokenizer, batch=1)
        self._pair = [token_id(tokenizer, token) for token in reversed(pair)]

    def _log_odds(self, sequences: list[list[int]], ends: list[Sequence[int]]) -> list[list[float]]:
        import torch

        device = self._model.device
        (tokens,), (at,) = sequences, ends
        keep = torch.tensor([end - 1 for end in at], device=device)
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=device)
            logits = self._model(ids, use_cache=False, logits_to_keep=keep).logits[0][:, self._pair].float()
        return [[log_odds(position) for position in logits.tolist()]]
