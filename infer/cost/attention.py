"""Dense and sparse attention: a decode step attends to the whole KV cache, or to a part that it chooses.

Each model is run with one of these, its `ModelSpec.decode`:

    replace(spec, decode=BlockTopK(64, 16))     # 64 blocks of 16 tokens

It concerns decode steps in layers without a sliding window. Prefill and the other layers attend to all that they see.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dense:
    """A decode step attends to every token in the cache."""


@dataclass(frozen=True, slots=True)
class TopK:
    """A decode step attends to the `k` tokens of highest score, chosen for each KV head, by scoring every key.

    All keys are read and scored, then the values of the chosen tokens only. `free_choice` leaves the choice out: keys
    and values of `k` tokens, as if an oracle named them.
    """

    k: int
    free_choice: bool = False


@dataclass(frozen=True, slots=True)
class BlockTopK:
    """A decode step attends to the last `local` tokens and the `k` best blocks of `block` tokens for each KV head.

    Blocks are chosen by the score of one representative key each (their mean, say), all of which are read.
    """

    k: int
    block: int
    local: int = 0


Decode = Dense | TopK | BlockTopK
