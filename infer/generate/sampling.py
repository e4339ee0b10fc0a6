"""Drawing the next token from logits, in vLLM's order: temperature, min_p, top_k, top_p. Imports torch.

The draw of a completion's token t is a function of its seed and of t alone: the t-th number of a SplitMix64 stream
(Steele, Lea and Flood, OOPSLA 2014) picks from the cumulative distribution. One number a token, and nothing to be kept
between tokens: all rows of a batch are drawn at once, whatever joins or leaves it, and every backend that
draws here draws the same.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infer.core.generator import Sampling

_LEAST_TEMPERATURE = 0.01
"""Temperatures between 0 and this are raised to it, as vLLM does: the backends must draw from the same distribution."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 256
"""Tokens whose weights are summed first, so that only the block drawn from is looked at token by token."""


def streams(seeds: Sequence[int]) -> NDArray[np.uint64]:
    """The start of each seed's stream (any integer); those of neighbouring seeds are far apart."""
    return _mixed(np.array([seed % 2**64 for seed in seeds], dtype=np.uint64))


def uniforms(streams: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """For each row the number at its position (0, 1, ...) of its stream: in [0, 1), of 53 bits."""
    numbers = _mixed(streams + (positions + np.uint64(1)) * _GAMMA)
    return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


class Sampler:
    """Draws the next tokens of a batch whose rows come and go."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def set_rows(self, rows: Sequence[tuple[Sampling, int]], device: torch.device | str = "cpu") -> None:
        """Sets the logits' rows for all later calls: how each is drawn, at a temperature above zero, and its seed."""
        samplings = [sampling for sampling, _ in rows]
        if all(sampling is samplings[0] for sampling in samplings):  # as it nearly always is
            samplings = samplings[:1]

        def column(values: list[float] | list[int]) -> Tensor:
            return torch.tensor(values, device=device)[:, None].expand(len(rows), 1)

        temperatures = [max(sampling.temperature, _LEAST_TEMPERATURE) for sampling in samplings]
        self._temperature = column(temperatures) if any(t != 1 for t in temperatures) else None
        self._min_p = column([s.min_p for s in samplings]) if any(s.min_p > 0 for s in samplings) else None
        self._top_k = column([s.top_k for s in samplings])
        self._top_p = column([s.top_p for s in samplings])
        self._cut = any(s.top_k > 0 or s.top_p < 1 for s in samplings)
        self._streams = streams([seed for _, seed in rows])

    def draw(self, logits: Tensor, positions: Iterable[int]) -> Tensor:
        """One token for each row, [rows], from float32 logits [rows, vocabulary].

        A row's position is the number of tokens that its seed has drawn: the draw depends on no other row.
        """
        at = np.fromiter(positions, dtype=np.uint64, count=len(self._streams))
        return pick(self.probabilities(logits), torch.from_numpy(uniforms(self._streams, at)).to(logits.device))

    def probabilities(self, logits: Tensor) -> Tensor:
        """By row, the probabilities to draw from, [rows, vocabulary]. The next call takes the same memory."""
        if self._temperature is not None:
            logits = logits / self._temperature
        if self._min_p is not None:
            weights = logits.softmax(-1)
            logits = logits.masked_fill(weights < self._min_p * weights.amax(-1, keepdim=True), -torch.inf)
        if self._cut:
            logits = self._within_top(logits)
        # kept as large as the largest batch: on a CPU, fresh memory at every token would cost more than the softmax
        if self._memory.numel() < logits.numel():
            self._memory = torch.empty(logits.numel(), dtype=logits.dtype, device=logits.device)
        return torch.softmax(logits, -1, out=self._memory[: logits.numel()].view(logits.shape))

    def _within_top(self, logits: Tensor) -> Tensor:
        ordered, order = logits.sort(-1)  # ascending
        size = logits.shape[-1]
        top_k = torch.where((self._top_k <= 0) | (self._top_k > size), size, self._top_k)
        ordered = ordered.masked_fill(ordered < ordered.gather(-1, size - top_k), -torch.inf)  # keeps ties
        beyond = ordered.softmax(-1).cumsum(-1) <= 1 - self._top_p
        beyond[:, -1] = False  # the best token always stays
        ordered = ordered.masked_fill(beyond, -torch.inf)
        return torch.empty_like(ordered).scatter_(-1, order, ordered)


def pick(weights: Tensor, uniform: Tensor) -> Tensor:
    """For each row the token at `uniform` (float64, [rows]) of its cumulative distribution; [rows].

    `weights` [rows, vocabulary] are float32 and need not sum to one. Sums over blocks are accumulated first, then the
    weights of one block, in float64: a large vocabulary's small weights must not drown in the sum. A row
    containing NaN yields an arbitrary token.
    """
    size = weights.shape[-1]
    if size <= _BLOCK:
        return _at(weights.double().cumsum(-1), uniform[:, None])[:, 0]
    whole = size // _BLOCK
    sums = weights[:, : whole * _BLOCK].unflatten(1, (whole, _BLOCK)).sum(-1)
    if size % _BLOCK:
        sums = torch.cat([sums, weights[:, whole * _BLOCK :].sum(-1, keepdim=True)], dim=1)
    sums = sums.double()
    cumulative = sums.cumsum(-1)  # [rows, blocks]
    block = _at(cumulative, uniform[:, None])
    begin = cumulative.gather(1, block) - sums.gather(1, block)
    inner = (uniform[:, None] * cumulative[:, -1:] - begin) / sums.gather(1, block)  # where in the block

    tokens = block * _BLOCK + torch.arange(_BLOCK, device=weights.device)  # [rows, block]
    inside = weights.gather(1, tokens.clamp(max=size - 1)).double().masked_fill_(tokens >= size, 0)
    return (block * _BLOCK + _at(inside.cumsum(-1), inner.clamp(0, 1)))[:, 0].clamp(max=size - 1)


def _at(cumulative: Tensor, fraction: Tensor) -> Tensor:
    """The index, [rows, 1], of the entry in which this fraction of the whole lies: one of weight above zero."""
    total = cumulative[:, -1:]
    # fraction * total may round up to total, and nothing comes after that
    target = torch.minimum(fraction * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).clamp(max=cumulative.shape[-1] - 1)
