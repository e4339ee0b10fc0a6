"""Training code shared by generators and reward models: packing, the optimizers, the loop."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

IGNORE = -100
ROW = 256  # tokens; the longest problem with its solution has about 160
WARMUP = 50  # steps


@dataclass(frozen=True, slots=True)
class Sequence:
    """A problem with a solution as tokens, and the targets to learn at each token; `IGNORE` where there is none."""

    ids: list[int]
    targets: list[int]
    """The right next token."""
    verdicts: list[int]
    """1 if this token is right, else 0."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences packed into rows, all `[rows, ROW]`; positions start at 0 with each sequence's first token."""

    ids: Tensor
    targets: Tensor
    verdicts: Tensor
    positions: Tensor
    mask: Tensor
    """`[rows, 1, ROW, ROW]`, True where attention is allowed: causal and within one sequence."""


def pack(sequences: list[Sequence]) -> Batch:
    """Packs sequences into rows by first fit: a third fewer tokens than padding each to the longest."""
    rows: list[list[Sequence]] = []
    room: list[int] = []
    for sequence in sorted(sequences, key=lambda s: -len(s.ids)):
        length = len(sequence.ids)
        assert length <= ROW, f"a sequence of {length} tokens does not fit into a row of {ROW}"
        row = next((i for i, free in enumerate(room) if free >= length), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(ROW)
        rows[row].append(sequence)
        room[row] -= length
    ids = torch.zeros(len(rows), ROW, dtype=torch.long)
    targets, verdicts = torch.full_like(ids, IGNORE), torch.full_like(ids, IGNORE)
    positions, owner = torch.zeros_like(ids), torch.zeros_like(ids)
    for i, row_sequences in enumerate(rows):
        start = 0
        for j, sequence in enumerate(row_sequences):
            here = slice(start, start + len(sequence.ids))
            ids[i, here] = torch.tensor(sequence.ids)
            targets[i, here] = torch.tensor(sequence.targets)
            verdicts[i, here] = torch.tensor(sequence.verdicts)
            positions[i, here], owner[i, here] = torch.arange(len(sequence.ids)), j + 1
            start += len(sequence.ids)
    mask = (owner[:, None, :, None] == owner[:, None, None, :]).tril()
    return Batch(ids, targets, verdicts, positions, mask)


def hidden_states(backbone: nn.Module, batch: Batch) -> Tensor:
    """The last hidden states `[rows, ROW, hidden]` of a transformers decoder, float32.

    Matrix products are in bfloat16, weights and the residual stream in float32. This is a quarter faster on AVX-512 for
    the larger sizes.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = backbone(
            input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask, use_cache=False
        ).last_hidden_state
    assert isinstance(output, Tensor)
    return output.float()


def fit(
    model: nn.Module,
    batches: Iterator[Batch],
    loss: Callable[[Batch], Tensor],
    *,
    steps: int,
    matrix_lr: float = 0.02,
    vector_lr: float = 5e-3,
    name: str = "",
) -> list[float]:
    """Trains `model` for `steps` batches and returns the loss of each.

    Muon (https://kellerjordan.github.io/posts/muon/) trains the matrices inside the layers, AdamW embeddings, norms and
    heads. With AdamW for everything the loss was 7 times as high after the same time. The learning rates warm up, are
    constant until half way, then fall linearly to zero.
    """
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    matrices = [p for n, p in trained.items() if p.ndim == 2 and ".layers." in n]
    others = [p for n, p in trained.items() if p.ndim != 2 or ".layers." not in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=matrix_lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=vector_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedule = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: min((step + 1) / WARMUP, 2 * (1 - step / steps), 1.0))
        for o in optimizers
    ]
    model.train()
    losses: list[float] = []
    started = time.perf_counter()
    for step in range(steps):
        value = loss(next(batches))
        value.backward()
        for optimizer, scheduler in zip(optimizers, schedule, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        losses.append(value.item())
        assert math.isfinite(losses[-1]), f"{name}: the loss is no longer finite at step {step}"
        if (step + 1) % 100 == 0 or step + 1 == steps:
            recent = sum(losses[-100:]) / len(losses[-100:])
            seconds = time.perf_counter() - started
            print(f"{name}: step {step + 1}/{steps}, loss {recent:.4f}, {seconds:.0f} s", flush=True)
    model.eval()
    return losses
