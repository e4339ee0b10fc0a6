"""The language models: four sizes of the Qwen3 architecture, trained from scratch on reference solutions."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from infer.nano import problems, tokenizer
from infer.nano.fit import IGNORE, Batch, Sequence, fit, hidden_states, pack


@dataclass(frozen=True, slots=True)
class Size:
    """One size of the family: its width and the length of its training."""

    hidden: int
    steps: int
    seed: int
    layers: int = 4
    batch: int = 32  # problems


SIZES: dict[str, Size] = {
    "xs": Size(hidden=32, steps=1000, seed=1),
    "s": Size(hidden=64, steps=1300, seed=2),
    "m": Size(hidden=128, steps=1000, seed=3),
    "l": Size(hidden=256, steps=1000, seed=4),
}


def config(hidden: int, layers: int) -> Qwen3Config:
    """The architecture at a width. A head size of 32 is the smallest that vLLM's CPU attention supports."""
    vocabulary = tokenizer.vocabulary()
    return Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 16 * 16 + 16,
        num_hidden_layers=layers,
        num_attention_heads=max(2, hidden // 32),
        num_key_value_heads=max(2, hidden // 32),
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=vocabulary[tokenizer.PAD],
        bos_token_id=None,
        eos_token_id=vocabulary[tokenizer.END],
    )


def encode_example(words: PreTrainedTokenizerFast, chain: problems.Chain) -> Sequence:
    """A problem with its reference solution. The targets are all tokens of the solution and the end token."""
    prompt: list[int] = words(f"{tokenizer.USER}{chain.prompt}{tokenizer.ASSISTANT}")["input_ids"]
    solution: list[int] = words(f"{chain.solution}{tokenizer.END}")["input_ids"]
    ids = prompt + solution
    return Sequence(ids, [IGNORE] * (len(prompt) - 1) + solution + [IGNORE], [IGNORE] * len(ids))


def examples(words: PreTrainedTokenizerFast, size: int, seed: int) -> Iterator[Batch]:
    """An endless stream of packed batches of `size` newly drawn problems."""
    chains = problems.training(seed)
    while True:
        yield pack([encode_example(words, next(chains)) for _ in range(size)])


def train(size: Size, words: PreTrainedTokenizerFast, name: str, seed: int = 0) -> Qwen3ForCausalLM:
    """Trains one generator; `seed` selects its family."""
    seed = 1000 * seed + size.seed
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config(size.hidden, size.layers))

    def loss(batch: Batch) -> Tensor:
        at = batch.targets != IGNORE
        return F.cross_entropy(model.lm_head(hidden_states(model.model, batch)[at]), batch.targets[at])

    fit(model, examples(words, size.batch, seed), loss, steps=size.steps, name=name)
    return model
