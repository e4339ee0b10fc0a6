"""Dense and sparse attention: a decode step attends to the whole KV cache, or to a part that it chooses.

A model runs with one of these, its `ModelSpec.decode`:

    replace(spec, decode=BlockTopK(64, 16))     # 64 blocks of 16 tokens

It applies to decode steps in layers without a sliding window. Prefill and the other layers are dense.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dense:
    """A decode step attends to every token in the cache."""


@dataclass(frozen=True, slots=True)
class TopK:
    """A decode step attends to the `k` tokens of highest score, chosen for each KV head, by scoring every key.

    All keys are read and scored, then the values of the chosen tokens only. With `free_choice` the choice costs
    nothing, as if an oracle made it: only the keys and values of `k` tokens are read.
    """

    k: int
    free_choice: bool = False


@dataclass(frozen=True, slots=True)
class BlockTopK:
    """A decode step attends to the last `local` tokens and the `k` best blocks of `block` tokens for each KV head.

    Each block has one representative key, such as the mean of its keys. All of these are read and scored to choose.
    """

    k: int
    block: int
    local: int = 0


Decode = Dense | TopK | BlockTopK
