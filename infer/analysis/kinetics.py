"""The traces published with Kinetics (arXiv 2506.05333), as runs.

There is one JSONL file for each model and kind of attention
(https://huggingface.co/datasets/InfiniAILab/Kinetics-generations). The first line holds metadata. Each other line is a
sample: `query` (the problem), `choices` (a list with the reference), `prediction` (a list with the model's text) and
`score` (0 or 100). Samples of one problem repeat its `query`. The files have no token counts: give a function that
counts them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from infer.analysis.frames import Runs, assemble
from infer.core.tree import Aggregation
from infer.errors import UserError
from infer.evalsets.graders.extraction import extract
from infer.evalsets.graders.mathematics import normalize


def read_kinetics(
    path: str | Path, *, model: str | None = None, count_tokens: Callable[[str], int] | None = None
) -> Runs:
    """Reads a file of traces as one run of independent samples; correctness is the file's own score.

    No answer was chosen, so `problems.correct` is NaN; `infer.analysis.at_k` gives the accuracy of k samples. Without
    `count_tokens` token counts are NaN. Answers are equal if their normalized texts are. Raises UserError for a file
    that is missing or empty, or a line that is not of this format.
    """
    path = Path(path)
    metadata: dict[str, Any] = {}
    samples: dict[str, list[tuple[str, float]]] = {}  # by query
    references: dict[str, str] = {}
    if not path.is_file():
        raise UserError(f"there is no file {path}: name a JSONL file of Kinetics' traces")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
                if number == 1 and "query" not in found:
                    metadata = dict(found)
                    continue
                reference = _first(found["choices"] if "choices" in found else found["choice"])
                sample = _first(found["prediction"]), float(found["score"])
            except (ValueError, LookupError, TypeError):
                if not line.endswith("\n"):
                    break  # torn
                raise UserError(f"line {number} of {path} has no query, choices, prediction and score") from None
            references[found["query"]] = reference
            samples.setdefault(found["query"], []).append(sample)
    if not samples:
        raise UserError(f"{path} has no samples in it")
    problems, groups, tokens, correct = [], [], [], []
    for index, (query, drawn) in enumerate(samples.items()):
        classes: dict[str, int] = {}
        for place, (text, score) in enumerate(drawn):
            answer = extract(text)
            groups.append(-1 if answer is None else classes.setdefault(normalize(answer), place))
            tokens.append(count_tokens(text) if count_tokens else np.nan)
            correct.append(float(score >= 1))  # some files have 1 for 100: the authors' own script takes both
        problems.append(
            {
                "run": path.stem,
                "problem_id": f"{path.parent.name}-{index}",
                "level": None,
                "reference": references[query],
                "answer": None,
                "correct": np.nan,
                "finished": True,
                "samples": len(drawn),
                "chosen": -1,
                "note": None,
                "seconds": np.nan,
                "generated": sum(tokens[-len(drawn) :]),
            }
        )
    size = len(groups)
    unknown = np.full(size, np.nan)
    candidates = pa.table(
        {
            "num_tokens": np.array(tokens),
            "depth": np.ones(size, dtype=np.int16),
            "finished": np.ones(size, dtype=bool),
            "correct": np.array(correct, dtype=np.float32),
            "group": np.array(groups, dtype=np.int32),
            "chosen": np.zeros(size, dtype=bool),
            "passes": np.zeros(size, dtype=np.int32),
            **{f"score_{how}": unknown for how in get_args(Aggregation)},
            "logprob": unknown,
        }
    )
    config = {"model": model or path.stem, "strategy": "samples", "on": path.parent.name, "options": metadata}
    record: dict[str, Any] = {"version": 1, "created": None, "config": config, "facts": [{}]}
    return assemble({path.stem: record}, [pd.DataFrame(problems)], [candidates])


def _first(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) else str(value)
