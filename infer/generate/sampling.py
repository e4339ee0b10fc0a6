"""Drawing the next token from logits, in vLLM's order: temperature, min_p, top_k, top_p. Imports torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from infer.generate.base import Sampling

_LEAST_TEMPERATURE = 0.01
"""Temperatures between 0 and this are raised to it, as vLLM does: the backends must draw from the same distribution."""


def draw(logits: Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator]) -> Tensor:
    """One token for each row, [rows], from float32 logits [rows, vocabulary].

    A row consumes one uniform number of its own generator (on the CPU, whatever the logits' device): the draw depends
    on no other row.
    """
    tokens = logits.argmax(-1)
    rows = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if not rows:
        return tokens
    at = torch.tensor(rows, device=logits.device)
    weights = probabilities(logits[at], [samplings[row] for row in rows])
    uniform = torch.stack([torch.rand((), generator=generators[row], dtype=torch.float64) for row in rows])
    # Inverse of the cumulative distribution, in float64: a vocabulary's small weights must not drown in the sum.
    cumulative = weights.double().cumsum(-1)
    total = cumulative[:, -1:]
    # u * total may round up to total, behind which no token is
    target = torch.minimum(uniform.to(logits.device)[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens[at] = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return tokens


def probabilities(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """What each row is drawn from, [rows, vocabulary]; every temperature is above zero."""

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(sampling, name) for sampling in samplings], device=logits.device)[:, None]

    logits = logits / column("temperature").clamp(min=_LEAST_TEMPERATURE)
    if any(sampling.min_p > 0 for sampling in samplings):
        weights = logits.softmax(-1)
        logits = logits.masked_fill(weights < column("min_p") * weights.amax(-1, keepdim=True), -torch.inf)
    if all(sampling.top_k <= 0 and sampling.top_p >= 1 for sampling in samplings):
        return logits.softmax(-1)

    ordered, order = logits.sort(-1)  # ascending
    size = logits.shape[-1]
    top_k = column("top_k")
    top_k = torch.where((top_k <= 0) | (top_k > size), size, top_k)
    ordered = ordered.masked_fill(ordered < ordered.gather(-1, size - top_k), -torch.inf)  # keeps ties
    beyond = ordered.softmax(-1).cumsum(-1) <= 1 - column("top_p")
    beyond[:, -1] = False  # the best token always stays
    ordered = ordered.masked_fill(beyond, -torch.inf)
    return torch.empty_like(ordered).scatter_(-1, order, ordered).softmax(-1)
