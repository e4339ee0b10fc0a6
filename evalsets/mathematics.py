"""Mathematics with a short final answer: the sets that papers on inference-time compute use.

Each is one file of a Hugging Face data set at one commit, so that its problems stay the same from year to year. To
update a set, change its revision and compare the problems.
"""

from functools import partial

from infer.evalsets.base import EvalSet
from infer.evalsets.hub import pinned


def _set(name: str, summary: str, repo: str, revision: str, file: str, license: str | None = None) -> EvalSet:
    return EvalSet(
        name=name,
        summary=summary,
        source=f"{repo}@{revision}",
        load=partial(pinned, name, repo, revision, file),
        license=license,
    )


MATH500 = _set(
    "math500",
    "500 problems of the MATH benchmark, the subset of 'Let's Verify Step by Step' (2305.20050), levels 1 to 5",
    "HuggingFaceH4/MATH-500",
    "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
    "test.jsonl",
    license="MIT",
)

AIME24 = _set(
    "aime24",
    "30 problems: American Invitational Mathematics Examination 2024, I and II; answers are integers 0 to 999",
    "HuggingFaceH4/aime_2024",
    "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
    "data/train-00000-of-00001.parquet",
)

AIME25 = _set(
    "aime25",
    "30 problems: American Invitational Mathematics Examination 2025, I and II; answers are integers 0 to 999",
    "math-ai/aime25",
    "563bb8404243c5f09de6ec262f2db674fe5bce9b",
    "test.jsonl",
)

AMC23 = _set(
    "amc23",
    "40 problems: American Mathematics Competitions 2023 (AMC 12), rewritten to have a numeric answer",
    "math-ai/amc23",
    "80815d37005feb82cd7f8fbc6901d5d3eff43057",
    "test-00000-of-00001.parquet",
)

GSM8K = _set(
    "gsm8k",
    "1319 grade-school word problems, the test split (2110.14168)",
    "openai/gsm8k",
    "740312add88f781978c0658806c59bc2815b9866",
    "main/test-00000-of-00001.parquet",
    license="MIT",
)
