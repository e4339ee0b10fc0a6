"""Samples solutions from a generator with plain transformers, on which the reward model is trained."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3ForCausalLM

from infer.nano import problems, tokenizer

LONGEST = 192  # tokens of a completion; the longest reference solution has about 120


@dataclass(frozen=True, slots=True)
class Sample:
    """A sampled solution: the problem and the completion's token ids, with the end token if it was reached."""

    chain: problems.Chain
    completion: list[int]


def sample(
    model: Qwen3ForCausalLM, words: PreTrainedTokenizerFast, chains: list[problems.Chain], *, greedy: bool = False
) -> list[Sample]:
    """Samples a solution of each chain at temperature 1, or greedily, in one batch, by torch's global generator."""
    texts = [f"{tokenizer.USER}{chain.prompt}{tokenizer.ASSISTANT}" for chain in chains]
    inputs = words(texts, padding=True, padding_side="left", return_tensors="pt")
    options = GenerationConfig(
        do_sample=not greedy,
        top_k=None if greedy else 0,  # 0: no limit; the default of transformers is 50
        max_new_tokens=LONGEST,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with torch.inference_mode():
        output = cast(Any, model).generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], generation_config=options
        )
    completions = output[:, inputs["input_ids"].shape[1] :].tolist()
    return [Sample(chain, until_end(ids, words)) for chain, ids in zip(chains, completions, strict=True)]


def until_end(ids: list[int], words: PreTrainedTokenizerFast) -> list[int]:
    """`ids` up to and including the first end token, if there is one."""
    end = cast(int, words.eos_token_id)
    return ids[: ids.index(end) + 1] if end in ids else ids


def training_samples(
    model: Qwen3ForCausalLM, words: PreTrainedTokenizerFast, *, count: int, seed: int, batch: int = 256
) -> Iterator[Sample]:
    """Yields `count` samples on training problems, sorted by length so that those of a batch end together."""
    torch.manual_seed(seed)
    stream = problems.training(seed)
    chains = sorted((next(stream) for _ in range(count)), key=lambda chain: len(chain.operations))
    samples = [s for i in range(0, count, batch) for s in sample(model, words, chains[i : i + batch])]
    random.Random(seed).shuffle(samples)
    yield from samples
