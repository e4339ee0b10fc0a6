"""Measure the nano family on held-out problems and print it as markdown: `python benchmarks/nano.py`.

Generators: greedy accuracy, pass@k (the unbiased estimator of Chen et al. 2021, arXiv:2107.03374) and majority vote at
temperature 1. Reward models: how well they judge the steps of each generator's samples, and the accuracy of best-of-n
and the weighted vote with their scores. vLLM generates, in process. transformers reads the scores, one pass a solution.
"""

import argparse
import gc
import itertools
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterable

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "TRANSFORMERS_VERBOSITY": "error"}
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForSequenceClassification
from transformers.utils.logging import disable_progress_bar
from vllm import LLM, SamplingParams

from infer.nano import CHECKPOINTS, checkpoint
from infer.nano.evaluation import Judged, auc_at_first_wrong_step, auc_of_solutions, calibration_error, judge
from infer.nano.problems import LEVELS, STEP_END, Chain, held_out
from infer.nano.sampling import LONGEST, Sample

SIZES = ("xs", "s", "m", "l")
VOTED = ("s", "m")  # the reward models choose among the samples of these, and judge only a few of the others' samples
JUDGED = 4
Solved = dict[Chain, list[Sample]]


class Generator:
    """One size in vLLM."""

    def __init__(self, size: str, words: PreTrainedTokenizerFast) -> None:
        self.words = words
        self.llm = LLM(
            str(checkpoint(f"nano-{size}")),
            dtype="float32",
            enforce_eager=True,
            max_num_seqs=256,
            max_num_batched_tokens=8192,
            seed=0,
        )

    def solve(self, chains: Iterable[Chain], n: int, temperature: float) -> tuple[Solved, float]:
        """`n` completions a problem, and generated tokens per second."""
        chains = list(chains)
        prompts = [prompt_ids(self.words, chain) for chain in chains]
        options = SamplingParams(n=n, temperature=temperature, max_tokens=LONGEST, detokenize=False)
        started = time.perf_counter()
        outputs = self.llm.generate([{"prompt_token_ids": ids} for ids in prompts], options, use_tqdm=False)
        seconds = time.perf_counter() - started
        solved = {c: [Sample(c, list(o.token_ids)) for o in r.outputs] for c, r in zip(chains, outputs, strict=True)}
        return solved, sum(len(s.completion) for samples in solved.values() for s in samples) / seconds


def prompt_ids(words: PreTrainedTokenizerFast, chain: Chain) -> list[int]:
    """The chat prompt's token ids."""
    message = [{"role": "user", "content": chain.prompt}]
    ids: list[int] = words.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    return ids


def answer(words: PreTrainedTokenizerFast, sample: Sample) -> str:
    """The content of the box in the completion's last step, or "" without one."""
    last: str = words.decode(sample.completion, skip_special_tokens=True).split(STEP_END)[-1]
    return last.partition("\\boxed{")[2].partition("}")[0]


def pass_at(k: int, right: int, n: int) -> float:
    """The probability that at least one of k samples is right, given that `right` of n were."""
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def vote(answers: list[str], weights: list[float]) -> str:
    """The answer with the largest sum of weights; of tied answers, the first."""
    total: dict[str, float] = defaultdict(float)
    for text, weight in zip(answers, weights, strict=True):
        total[text] += weight
    return max(total, key=lambda text: total[text])


def mean(values: Iterable[float]) -> float:
    """The mean of at least one value."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


def row(*cells: object) -> None:
    """One row of a markdown table, numbers to three digits."""
    texts = [f"{cell:.3f}".removeprefix("0") if isinstance(cell, float) else str(cell) for cell in cells]
    print("| " + " | ".join(texts) + " |", flush=True)


def header(*names: str) -> None:
    """A markdown table's head."""
    print()
    row(*names)
    row(*("---" for _ in names))


def judge_once(
    model: Qwen3ForSequenceClassification, words: PreTrainedTokenizerFast, samples: list[Sample]
) -> list[Judged]:
    """Judges samples, and identical ones only once."""
    different = {(s.chain, tuple(s.completion)): s for s in samples}
    judged = dict(zip(different, judge(model, words, list(different.values())), strict=True))
    return [judged[s.chain, tuple(s.completion)] for s in samples]


def generators(words: PreTrainedTokenizerFast, problems: int, n: int) -> dict[str, dict[int, Solved]]:
    """Measure and print the generators; their samples by size and level.

    Draws `n` samples a problem, with two exceptions. Size s draws 64 on level 3, since most results are shown there.
    Size l draws fewer, since it costs most and solves nearly all problems with few.
    """
    samples: dict[str, dict[int, Solved]] = {}
    header("model", "level", "greedy", "pass@1", "pass@4", "pass@16", "pass@64", f"majority@{n}", "tokens/s")
    for size in SIZES:
        generator = Generator(size, words)
        samples[size] = {}
        for level in LEVELS:
            chains = list(itertools.islice(held_out(level), problems))
            greedy, _ = generator.solve(chains, 1, temperature=0.0)
            count = JUDGED if size == "l" else max(64, n) if (size, level) == ("s", 3) else n
            solved, speed = generator.solve(chains, count, temperature=1.0)
            right = {c: [answer(words, s) == str(c.answer) for s in solved[c]] for c in chains}
            passed = [
                mean(pass_at(k, sum(right[c]), len(right[c])) for c in chains) if k <= len(right[chains[0]]) else "–"
                for k in (1, 4, 16, 64)
            ]
            votes = min(n, count)
            voted = mean(
                vote([answer(words, s) for s in solved[c][:n]], [1.0] * votes) == str(c.answer) for c in chains
            )
            exact = mean(answer(words, greedy[c][0]) == str(c.answer) for c in chains)
            row(size, level, exact, *passed, voted if votes == n else "–", f"{speed:,.0f}")
            samples[size][level] = {c: solved[c][:n] for c in chains}
        del generator
        gc.collect()
    return samples


def reward_models(words: PreTrainedTokenizerFast, samples: dict[str, dict[int, Solved]], n: int) -> None:
    """Measure and print the reward models on the generators' samples."""
    names = sorted((p.parent.name for p in CHECKPOINTS.glob("prm-*/config.json")), reverse=True)
    models = {p: Qwen3ForSequenceClassification.from_pretrained(checkpoint(f"nano-{p}")).eval() for p in names}
    lines: list[tuple[object, ...]] = []
    header("PRM", "samples of", "AUC, first wrong step", *(f"L{level}" for level in LEVELS), "solutions (min)", "ECE")
    for name, size in itertools.product(names, SIZES):
        each = n if size in VOTED else JUDGED
        judged = {
            level: judge_once(models[name], words, [s for written in solved.values() for s in written[:each]])
            for level, solved in samples[size].items()
        }
        everything = list(itertools.chain(*judged.values()))
        row(
            name, size, auc_at_first_wrong_step(everything), *(auc_at_first_wrong_step(j) for j in judged.values()),
            auc_of_solutions(everything), calibration_error(everything),
        )  # fmt: skip
        if size not in VOTED:
            continue
        for level, solved in samples[size].items():
            best, weighted = [], []
            for i, (chain, written) in enumerate(solved.items()):
                weights = [min(j.scores, default=0.0) for j in judged[level][i * n : i * n + n]]
                answers = [answer(words, s) for s in written]
                best.append(answers[weights.index(max(weights))] == str(chain.answer))
                weighted.append(vote(answers, weights) == str(chain.answer))
            lines.append((name, size, level, mean(best), mean(weighted)))
    header("PRM", "samples of", "level", f"best-of-{n} (min)", f"weighted vote@{n} (min)")
    for line in lines:
        row(*line)


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description="Measure the nano family.")
    parser.add_argument("--problems", type=int, default=200, help="held-out problems a level")
    parser.add_argument("--samples", type=int, default=16, help="samples a problem")
    options = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    started = time.perf_counter()
    words = AutoTokenizer.from_pretrained(checkpoint("nano-s"))
    error = 0.5 / math.sqrt(options.problems)
    print(f"{options.problems} held-out problems a level: standard errors of accuracies up to {error:.3f}.")
    samples = generators(words, options.problems, options.samples)
    reward_models(words, samples, options.samples)
    print(f"\nMeasured in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
