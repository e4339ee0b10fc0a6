"""Measures how well a reward model judges steps: its scores with plain transformers, and statistics of them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from transformers import PreTrainedTokenizerFast, Qwen3ForSequenceClassification

from infer.nano import tokenizer
from infer.nano.prm import Annotator
from infer.nano.sampling import Sample


@dataclass(frozen=True, slots=True)
class Judged:
    """The reward model's scores of a completion's finished steps, and their true verdicts."""

    scores: list[float]
    verdicts: list[bool]

    @property
    def is_right(self) -> bool:
        """Whether every step is right, including the answer."""
        return all(self.verdicts)


def judge(
    model: Qwen3ForSequenceClassification, words: PreTrainedTokenizerFast, samples: list[Sample], batch: int = 64
) -> list[Judged]:
    """Scores the steps of samples: the probability of label 1 at each step's last token.

    One pass gives the scores of all steps of a solution: the model is causal, so each equals the score of the prefix
    that ends there.
    """
    annotator = Annotator(words)
    judged: dict[int, Judged] = {}
    order = sorted(range(len(samples)), key=lambda i: len(samples[i].completion))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        prompts = [f"{tokenizer.USER}{samples[i].chain.prompt}{tokenizer.ASSISTANT}" for i in chosen]
        rows = [p + samples[i].completion for p, i in zip(words(prompts)["input_ids"], chosen, strict=True)]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)  # padding comes last, and a causal model does not see it
        with torch.inference_mode():
            right = model.score(model.model(input_ids=ids, use_cache=False).last_hidden_state).softmax(-1)[..., 1]
        for row, tokens, i in zip(right.tolist(), rows, chosen, strict=True):
            first = len(tokens) - len(samples[i].completion)
            ends = [t for t in range(first, len(tokens)) if tokens[t] in (annotator.step_end, annotator.end)]
            judged[i] = Judged([row[t] for t in ends], annotator.verdicts(samples[i])[: len(ends)])
    return [judged[i] for i in range(len(samples))]


def auc(positive: list[float], negative: list[float]) -> float:
    """The probability that a positive outranks a negative; ties count half (area under the ROC curve)."""
    ranks = rankdata(np.array(positive + negative))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auc_at_first_wrong_step(judged: list[Judged]) -> float:
    """AUC of scores at right steps against scores at the first wrong step of each wrong solution.

    Steps after the first wrong one do not count: a search has already left the right path there.
    """
    right: list[float] = []
    wrong: list[float] = []
    for solution in judged:
        first = solution.verdicts.index(False) if not solution.is_right else len(solution.verdicts)
        right += solution.scores[:first]
        wrong += solution.scores[first : first + 1]
    return auc(right, wrong)


def auc_of_solutions(judged: list[Judged]) -> float:
    """AUC of right against wrong solutions, each scored by the minimum over its steps."""
    score = {True: [min(s.scores) for s in judged if s.scores and s.is_right]}
    score[False] = [min(s.scores) for s in judged if s.scores and not s.is_right]
    return auc(score[True], score[False])


def calibration_error(judged: list[Judged], bins: int = 15) -> float:
    """Expected calibration error of all step scores, with bins of equal width (Guo et al. 2017, arXiv:1706.04599)."""
    scores: NDArray[np.float64] = np.array([x for s in judged for x in s.scores])
    truth: NDArray[np.float64] = np.array([x for s in judged for x in s.verdicts], dtype=np.float64)
    index = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [abs(float((scores - truth)[index == b].sum())) for b in range(bins)]
    return sum(gaps) / len(scores)
