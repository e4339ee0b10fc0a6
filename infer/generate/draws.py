"""Seeded sampling inside vLLM: a logits processor that draws, where vLLM keeps a random generator for each request.

vLLM's sampler asks the generator of every seeded request for its next number in turn: a cost of microseconds a token,
felt where a step takes milliseconds, and on a CPU it then computes noise for the whole vocabulary. Here all rows of the
batch are drawn at once by `infer.generate.sampling`. To vLLM the requests are greedy ones, and the token drawn is made
the greatest. Log-probabilities are not touched: vLLM takes them from the logits as they came.
"""

from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from infer.core.generator import Sampling
from infer.generate.sampling import Sampler

_KEY = "infer_draw"


def drawn(sampling: Sampling, seed: int) -> dict[str, Any]:
    """`SamplingParams.extra_args` of a greedy request: how this processor draws its tokens."""
    return {_KEY: (seed, sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p)}  # as Sampling's fields


class SeededDraws(LogitsProcessor):  # type: ignore[misc]  # vLLM comes untyped
    """Draws for the requests that carry `drawn`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._requests: dict[int, tuple[Sampling, int, list[int]]] = {}
        """By row of the batch: how to draw, the seed, and the tokens so far (vLLM's own list: it grows)."""
        self._samplings: dict[tuple[Any, ...], Sampling] = {}
        self._changed = False
        self._sampler = Sampler()

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        def request(params: SamplingParams, _: Any, output: list[int]) -> tuple[Sampling, int, list[int]] | None:
            told = (params.extra_args or {}).get(_KEY)
            if told is None:
                return None
            seed, *how = told
            sampling = self._samplings.setdefault(tuple(how), Sampling(*how))  # one object for all that are equal
            return sampling, seed, output

        self._changed |= process_dict_updates(self._requests, batch_update, request)

    def apply(self, logits: Tensor) -> Tensor:
        if self._changed:
            rows = sorted(self._requests)
            self._rows = torch.tensor(rows, device=logits.device)
            self._outputs = [self._requests[row][2] for row in rows]
            self._sampler.set_rows([self._requests[row][:2] for row in rows], logits.device)
            self._changed = False
        if self._requests:
            mine = logits if len(self._outputs) == len(logits) else logits[self._rows]
            logits[self._rows, self._sampler.draw(mine, map(len, self._outputs))] = torch.inf
        return logits
