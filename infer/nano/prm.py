"""The process reward model: a generator's layers, two new ones on top, a head that judges steps, and half the neurons.

A step is judged at its last token (`\\n\\n`, or the end token after the answer), and by itself: is it right, given the
text of the steps before it? A solution is as good as its worst step, so step scores are aggregated by their minimum
(area under the ROC curve of solutions of s: minimum .974, product .975, mean .972, last .733).

Labels at the ends of steps alone are too sparse to build, in minutes, the circuit that compares a written digit with
the right one. Two denser signals do so: the verdict on every token, and the right next token, which the generator's own
head predicts from the states below the new layers. The second part of the training drops both.

With the new layers the model is one and a half times as large as its generator. Once it has the circuit it needs fewer
neurons: the last part of the training removes half of them and trains the rest, which is no larger than the generator.
"""

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from infer.nano import problems, tokenizer
from infer.nano.fit import IGNORE, Batch, Sequence, fit, hidden_states, pack
from infer.nano.sampling import Sample, training_samples

NEW_LAYERS = 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a reward model is trained."""

    backbone: str
    seed: int
    dense_steps: int
    final_steps: int
    neurons: int
    """Neurons of each layer that remain after pruning."""
    pruned_steps: int
    samples: int = 4000
    """Number of sampled solutions of each generator."""
    batch: int = 32


RECIPES: dict[str, Recipe] = {
    "prm-s": Recipe(backbone="s", seed=11, dense_steps=1800, final_steps=700, neurons=88, pruned_steps=1200),
}


def new_model(generator: Qwen3ForCausalLM) -> Qwen3ForSequenceClassification:
    """A two-label classifier on the generator's layers and `NEW_LAYERS` more, which start as the identity."""
    settings = generator.config.to_dict()
    depth = settings["num_hidden_layers"]
    del settings["layer_types"]
    settings |= {
        "num_hidden_layers": depth + NEW_LAYERS,
        "id2label": {0: "wrong", 1: "right"},
        "label2id": {"wrong": 0, "right": 1},
        "prm_aggregation": "min",
    }
    model = Qwen3ForSequenceClassification(Qwen3Config(**settings))
    model.model.load_state_dict(generator.model.state_dict(), strict=False)
    for layer in model.model.layers[depth:]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


class Annotator:
    """Turns written solutions into token sequences with verdicts."""

    def __init__(self, words: PreTrainedTokenizerFast) -> None:
        self.words = words
        self.step_end = tokenizer.vocabulary()[problems.STEP_END]
        self.end = tokenizer.vocabulary()[tokenizer.END]

    def steps(self, completion: list[int]) -> list[list[int]]:
        """Splits a completion's tokens into steps, each with the token that ends it (the last may lack it)."""
        steps: list[list[int]] = [[]]
        for token in completion:
            steps[-1].append(token)
            if token == self.step_end:
                steps.append([])
        return [step for step in steps if step]

    def expected(self, chain: problems.Chain, steps: list[list[int]]) -> list[list[int] | None]:
        """The right tokens of each step, including its end; None where there are none."""
        texts = [self.words.decode([t for t in step if t not in (self.step_end, self.end)]) for step in steps]
        ends = [self.end if k >= len(chain.operations) else self.step_end for k in range(len(steps))]
        right = problems.expected_steps(chain, texts)
        tokens = [None if text is None else cast(list[int], self.words(text)["input_ids"]) for text in right]
        return [None if ids is None else [*ids, end] for ids, end in zip(tokens, ends, strict=True)]

    def verdicts(self, sample: Sample) -> list[bool]:
        """Whether each step of a completion is right, including its end token."""
        steps = self.steps(sample.completion)
        return [step == right for step, right in zip(steps, self.expected(sample.chain, steps), strict=True)]

    def corrupted(self, chain: problems.Chain, rng: random.Random) -> Sample:
        """A reference solution with slips: a wrong result in every tenth step, and half as many miscopied values."""
        text = problems.STEP_END.join(problems.corrupt(chain, rng, miscopied=0.05, miscalculated=0.1))
        return Sample(chain, self.words(f"{text}{tokenizer.END}")["input_ids"])

    def sequence(self, sample: Sample) -> Sequence:
        """The prompt and a completion, with a verdict on every token of it; at a step's end it is that of the step.

        The target is the right next token, where all tokens before it in its step are right.
        """
        prompt: list[int] = self.words(f"{tokenizer.USER}{sample.chain.prompt}{tokenizer.ASSISTANT}")["input_ids"]
        steps = self.steps(sample.completion)
        targets, verdicts = [IGNORE] * (len(prompt) - 1), [IGNORE] * len(prompt)
        for step, right in zip(steps, self.expected(sample.chain, steps), strict=True):
            for i, token in enumerate(step):
                so_far = right is not None and i < len(right) and step[:i] == right[:i]
                targets.append(right[i] if right is not None and so_far else IGNORE)
                if token in (self.step_end, self.end):
                    verdicts.append(int(step == right))
                else:
                    verdicts.append(IGNORE if right is None else int(right[i : i + 1] == [token]))
        return Sequence(prompt + sample.completion, [*targets, IGNORE], verdicts)


class Verdicts:
    """A reward model's losses on verdicts: mean cross-entropies."""

    def __init__(self, model: Qwen3ForSequenceClassification, annotator: Annotator) -> None:
        self.model = model
        self.ends = torch.tensor([annotator.step_end, annotator.end])

    def _mean(self, states: Tensor, batch: Batch, at: Tensor) -> Tensor:
        return F.cross_entropy(cast(Tensor, self.model.score(states[at])), batch.verdicts[at])

    def of_steps(self, batch: Batch) -> Tensor:
        """The loss at the ends of steps."""
        states = hidden_states(self.model.model, batch)
        return self._mean(states, batch, (batch.verdicts != IGNORE) & torch.isin(batch.ids, self.ends))

    def of_tokens_and_steps(self, batch: Batch) -> Tensor:
        """The loss at the tokens within steps, plus that at the ends of steps."""
        states = hidden_states(self.model.model, batch)
        judged, end = batch.verdicts != IGNORE, torch.isin(batch.ids, self.ends)
        return self._mean(states, batch, judged & ~end) + self._mean(states, batch, judged & end)


class NextToken:
    """The loss of predicting the right next token from the input of a reward model's new layers."""

    def __init__(self, model: Qwen3ForSequenceClassification, generator: Qwen3ForCausalLM) -> None:
        # The generator's own norm and head, no longer tied to the embedding: with a tied head the last layers overwrite
        # the token that was read, which the verdict on a written digit needs.
        self.norm, self.head = copy.deepcopy(generator.model.norm), copy.deepcopy(generator.lm_head)
        self.below: Tensor | None = None
        """The hidden states below the new layers, from the model's last pass."""
        model.model.layers[generator.config.num_hidden_layers].register_forward_pre_hook(self._remember)

    def _remember(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.below = inputs[0]

    def loss(self, batch: Batch) -> Tensor:
        """The mean cross-entropy. Call it after the model's pass over the batch."""
        assert self.below is not None
        follows = batch.targets != IGNORE
        return F.cross_entropy(self.head(self.norm(self.below[follows].float())), batch.targets[follows])


def batches(
    written: list[Sequence], annotator: Annotator, rng: random.Random, *, size: int, sampled: int, seed: int
) -> Iterator[Batch]:
    """Endless batches of `size` solutions: `sampled` of them from `written` (which it shuffles), others with slips."""

    def shuffled() -> Iterator[Sequence]:
        while True:
            rng.shuffle(written)
            yield from written

    def slips() -> Iterator[Sequence]:
        for chain in problems.training(seed):
            yield annotator.sequence(annotator.corrupted(chain, rng))

    real, made = shuffled(), slips()
    while True:
        yield pack([next(real) if i < sampled else next(made) for i in range(size)])


def grow(
    recipe: Recipe, generator: Qwen3ForCausalLM, written: list[Sequence], annotator: Annotator, name: str, seed: int
) -> Qwen3ForSequenceClassification:
    """Trains a reward model with all of a generator's layers and the new ones: the first two parts."""
    written, rng, size = list(written), random.Random(seed), recipe.batch
    torch.manual_seed(seed)
    model = new_model(generator)
    verdicts, next_token = Verdicts(model, annotator), NextToken(model, generator)
    mixed = batches(written, annotator, rng, size=size, sampled=size * 5 // 8, seed=seed)
    real = batches(written, annotator, rng, size=size, sampled=size, seed=seed)
    fit(
        nn.ModuleList([model, next_token.norm, next_token.head]),
        mixed,
        lambda batch: verdicts.of_tokens_and_steps(batch) + next_token.loss(batch),
        steps=recipe.dense_steps,
        name=f"{name}, dense",
    )
    slow = {"matrix_lr": 2e-3, "vector_lr": 5e-4}
    fit(model, real, verdicts.of_steps, steps=recipe.final_steps, name=f"{name}, steps", **slow)
    return model


def without_neurons(model: Qwen3ForSequenceClassification, count: int) -> Qwen3ForSequenceClassification:
    """A copy of a reward model that keeps, in each layer's MLP, the `count` neurons with the largest weights.

    A neuron's weight is the product of the norms of its gate, its input and its output.
    """
    weights = model.state_dict()
    for i in range(model.config.num_hidden_layers):
        mlp = f"model.layers.{i}.mlp"
        gate, up, down = (weights[f"{mlp}.{part}_proj.weight"] for part in ("gate", "up", "down"))
        kept = (gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)).topk(count).indices.sort().values
        weights[f"{mlp}.gate_proj.weight"] = gate[kept]
        weights[f"{mlp}.up_proj.weight"] = up[kept]
        weights[f"{mlp}.down_proj.weight"] = down[:, kept]
    pruned = Qwen3ForSequenceClassification(Qwen3Config(**(model.config.to_dict() | {"intermediate_size": count})))
    pruned.load_state_dict(weights)
    return pruned


def prune(
    recipe: Recipe,
    model: Qwen3ForSequenceClassification,
    written: list[Sequence],
    annotator: Annotator,
    name: str,
    seed: int,
) -> Qwen3ForSequenceClassification:
    """Removes neurons from a trained reward model and trains the rest: the last part."""
    pruned = without_neurons(model, recipe.neurons)
    size = recipe.batch
    real = batches(list(written), annotator, random.Random(seed), size=size, sampled=size, seed=seed)
    loss, slow = Verdicts(pruned, annotator).of_tokens_and_steps, {"matrix_lr": 5e-3, "vector_lr": 1.25e-3}
    fit(pruned, real, loss, steps=recipe.pruned_steps, name=f"{name}, pruned", **slow)
    return pruned


def train(
    recipe: Recipe, generators: dict[str, Qwen3ForCausalLM], words: PreTrainedTokenizerFast, name: str, seed: int = 0
) -> Qwen3ForSequenceClassification:
    """Trains one reward model on solutions of all generators; `seed` selects its family."""
    annotator = Annotator(words)
    seed = 1000 * seed + recipe.seed
    written: list[Sequence] = []
    for i, (size, generator) in enumerate(generators.items()):
        samples = training_samples(generator, words, count=recipe.samples, seed=10 * seed + i)
        written += [annotator.sequence(sample) for sample in samples]
        print(f"{name}: {recipe.samples} samples of {size}", flush=True)
    model = grow(recipe, generators[recipe.backbone], written, annotator, name, seed)
    return prune(recipe, model, written, annotator, name, seed + 1)
