"""Seeded sampling inside vLLM: a logits processor that draws, where vLLM keeps a random generator for each request.

vLLM's sampler asks the generator of every seeded request for its next number in turn: a cost of microseconds a token,
felt where a step takes milliseconds, and on a CPU it then computes noise for the whole vocabulary. Here all rows of the
batch are drawn at once by `infer.generate.sampling`. To vLLM the requests are greedy ones, and the token drawn is made
the greatest. Log-probabilities are not touched: vLLM takes them from the logits as they came.

Logits that are no numbers are noted here too, for each request. To vLLM they are nothing special: the first NaN counts
as the greatest.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from infer.core.generator import Sampling
from infer.generate.sampling import Sampler

_DRAW, _FLAWS = "infer_draw", "infer_flaws"


def drawn(sampling: Sampling, seed: int) -> dict[str, Any]:
    """`SamplingParams.extra_args` of a request that is greedy to vLLM: how this processor draws its tokens."""
    how = (seed, sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p)  # as Sampling's fields
    return {_DRAW: how, _FLAWS: []}


def flawed(params: SamplingParams) -> bool:
    """Whether logits of this request were NaN. Known in the engine's own process alone."""
    return bool((params.extra_args or {}).get(_FLAWS))


class _Request(NamedTuple):
    sampling: Sampling
    seed: int
    output: list[int]
    """The tokens so far (vLLM's own list: it grows)."""
    flaws: list[int]
    """The request's own: the lengths at which its logits were NaN."""


class SeededDraws(LogitsProcessor):  # type: ignore[misc]  # vLLM comes untyped
    """Draws for the requests that carry `drawn`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._requests: dict[int, _Request] = {}
        """By row of the batch."""
        self._samplings: dict[tuple[Any, ...], Sampling] = {}
        self._changed = False
        self._sampler = Sampler()

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        def request(params: SamplingParams, _: Any, output: list[int]) -> _Request | None:
            told = params.extra_args or {}
            if _DRAW not in told:
                return None
            seed, *how = told[_DRAW]
            sampling = self._samplings.setdefault(tuple(how), Sampling(*how))  # one object for all that are equal
            return _Request(sampling, seed, output, told[_FLAWS])

        self._changed |= process_dict_updates(self._requests, batch_update, request)

    def apply(self, logits: Tensor) -> Tensor:
        if self._changed:
            rows = [row for row, request in sorted(self._requests.items()) if request.sampling.temperature > 0]
            self._rows = torch.tensor(rows, dtype=torch.long, device=logits.device)
            self._outputs = [self._requests[row].output for row in rows]
            self._sampler.set_rows([self._requests[row][:2] for row in rows], logits.device)
            self._changed = False
        # a hidden state that is NaN makes all logits of its row NaN: one column shows it
        for row in logits[:, 0].isnan().nonzero()[:, 0].tolist():
            if row in self._requests:
                self._requests[row].flaws.append(len(self._requests[row].output))
        if self._requests and self._outputs:
            mine = logits if len(self._outputs) == len(logits) else logits[self._rows]
            logits[self._rows, self._sampler.draw(mine, map(len, self._outputs))] = torch.inf
        return logits
