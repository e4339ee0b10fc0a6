"""The options that commands share, and what is made of them."""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from infer.errors import UserError
from infer.runs.job import Job

WHAT, HOW, MODELS, SAMPLING, RUN = "What to solve", "How", "Models", "Sampling", "Run"

Question = Annotated[str | None, typer.Argument(help="One question to solve, in place of --on.", show_default=False)]
On = Annotated[
    str | None,
    typer.Option(
        help="Evaluation set by name (infer list evalsets), a JSONL, JSON, CSV or Parquet file, or a dataset "
        "OWNER/NAME of the hub. Default with a packaged model: nano.",
        rich_help_panel=WHAT,
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.", rich_help_panel=WHAT)]
ProblemColumn = Annotated[str | None, typer.Option(help="Column of the problem's text.", rich_help_panel=WHAT)]
AnswerColumn = Annotated[str | None, typer.Option(help="Column of the reference answer.", rich_help_panel=WHAT)]
IdColumn = Annotated[str | None, typer.Option(help="Column of a unique id.", rich_help_panel=WHAT)]
Split = Annotated[str | None, typer.Option(help="Split of a hub dataset.", rich_help_panel=WHAT)]
Strategy = Annotated[
    str, typer.Option("--strategy", "-s", help="By name (infer list strategies).", rich_help_panel=HOW)
]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of the strategy.", rich_help_panel=HOW),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        "-b",
        help="Of each problem, never overshot: generated tokens (4k, 4096tok), verifier passes (64prm), seconds (30s), "
        "or the cost of both models (2e12flops, 5e15eflops, 0.002usd).",
        rich_help_panel=HOW,
    ),
]
Seed = Annotated[int, typer.Option(help="Of the whole run.", rich_help_panel=HOW)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="A packaged model, a folder, or a hub id. Default: nano-s.", rich_help_panel=MODELS
    ),
]
Prm = Annotated[
    str | None,
    typer.Option(
        help="Reward model: a packaged name, folder, hub id, or URL of a vLLM server; self; several as a,b, min:a,b or "
        "prod:a,b. Its family before it where it can't be told (math-shepherd:DIR), #chains=N behind a judge. Default "
        "for nano models: nano-prm-s.",
        rich_help_panel=MODELS,
    ),
]
Revision = Annotated[str | None, typer.Option(help="Of the model on the hub.", rich_help_panel=MODELS)]
PrmRevision = Annotated[str | None, typer.Option(help="Of the PRM on the hub.", rich_help_panel=MODELS)]
Backend = Annotated[
    str | None,
    typer.Option(
        help="vllm, transformers, or openai (a completions server). Default: vllm where it is installed, else "
        "transformers.",
        rich_help_panel=MODELS,
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option(help="Of the server, such as http://127.0.0.1:8000/v1.", rich_help_panel=MODELS)
]
ApiKey = Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="Of the server.", rich_help_panel=MODELS)]
PrmApiKey = Annotated[
    str | None,
    # no other key is sent there: the two servers may be strangers to each other
    typer.Option(envvar="INFER_PRM_API_KEY", help="Of the servers that --prm names.", rich_help_panel=MODELS),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="auto, bfloat16, float16 or float32. Default: the profile's.", rich_help_panel=MODELS),
]
MaxContext = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens of prompt and completion. Default: the model's.", rich_help_panel=MODELS),
]
Hardware = Annotated[
    str,
    typer.Option(
        help="What costs are counted for: h100, h200, b200, a100, l40s, rtx4090, mi300x, tpu-v5e, or cpu (measured by "
        "infer hardware --measure).",
        rich_help_panel=MODELS,
    ),
]
Batch = Annotated[
    int,
    typer.Option(
        min=1, help="Requests that are assumed to share each reading of the weights, in costs.", rich_help_panel=MODELS
    ),
]
TensorParallel = Annotated[int, typer.Option(min=1, help="GPUs a model is split over.", rich_help_panel=MODELS)]
DataParallel = Annotated[int, typer.Option(min=1, help="Copies of the generator.", rich_help_panel=MODELS)]
GpuMemory = Annotated[
    float, typer.Option(min=0.05, max=1.0, help="Share of the GPU's memory for the models.", rich_help_panel=MODELS)
]
Temperature = Annotated[
    float | None,
    typer.Option(min=0, max=2, help="0 is greedy. Default: the model's profile.", rich_help_panel=SAMPLING),
]
TopP = Annotated[float, typer.Option(max=1, help="Nucleus; 1 is off.", rich_help_panel=SAMPLING)]
TopK = Annotated[int, typer.Option(min=0, help="0 is off.", rich_help_panel=SAMPLING)]
MinP = Annotated[float, typer.Option(min=0, max=1, help="0 is off.", rich_help_panel=SAMPLING)]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="Of a whole completion. Default: the profile's.", rich_help_panel=SAMPLING)
]
StepTokens = Annotated[
    int | None,
    typer.Option(min=1, help="A longer step is ended. Default: the profile's.", rich_help_panel=SAMPLING),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help=r"A string that ends a completion, \n in it a line break; repeatable.", rich_help_panel=SAMPLING),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help=r"What ends a step, \n in it a line break. Default: the profile's, a blank line.", rich_help_panel=SAMPLING
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="Folder of the run; an unfinished one is resumed. Default: a new one under runs/.",
        rich_help_panel=RUN,
    ),
]
Concurrency = Annotated[
    int,
    typer.Option(min=1, help="Problems in flight at once; a large GPU needs more to be full.", rich_help_panel=RUN),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=RUN)]
Debug = Annotated[bool, typer.Option(help="Show tracebacks and the engines' own messages.", rich_help_panel=RUN)]
Trace = Annotated[bool, typer.Option(help="Keep each problem's search tree, for infer show.", rich_help_panel=RUN)]


def job_of(values: dict[str, Any], options: Sequence[str]) -> Job:
    """The job that a command's parameters describe. Raises UserError."""
    given = {name: value for name, value in values.items() if name in Job.model_fields and value is not None}
    if "delimiter" in given:
        given["delimiter"] = given["delimiter"].replace("\\n", "\n")
    if "stop" in given:
        given["stop"] = tuple(stop.replace("\\n", "\n") for stop in given["stop"])
    try:
        return Job(**given, options=tuple(options))
    except ValidationError as error:
        first = error.errors()[0]
        name, value = str(first["loc"][0]), first["input"]
        raise UserError(f"--{name.replace('_', '-')} {value!r}: {first['msg']}") from None


def fresh_folder(name: str) -> Path:
    """A new folder under runs/, named by the time and `name`; two commands of the same second get two."""
    stem = f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{name}"
    try:
        for attempt in itertools.count(1):
            folder = Path("runs") / (stem if attempt == 1 else f"{stem}-{attempt}")
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                break
    except OSError as error:
        where = Path("runs").resolve()
        raise UserError(f"cannot make a folder in {where}: {error.strerror}: name one with --run") from error
    return folder
