"""`infer rescore`: the solutions of a run, judged again."""

import json
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from infer.cli.app import app, examples
from infer.cli.display import print_summary
from infer.cli.options import options_of_fields
from infer.cli.terminal import engine_noise_to, out, say
from infer.core import interrupts
from infer.core.choice import Choice
from infer.core.tally import Tally, summary_json
from infer.core.tree import Aggregation
from infer.evalsets.graders.mathematics import Mathematics
from infer.generate import backends
from infer.runs.run import read_solutions
from infer.runs.verifiers import VerifierRef


@app.command(
    epilog=examples(
        "infer rescore runs/first --out runs/min --aggregation min --choose weighted",
        "infer rescore runs/first --out runs/other --prm Qwen/Qwen2.5-Math-PRM-7B",
    )
)
@options_of_fields()
def rescore(
    *,
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    to: Annotated[Path, typer.Option("--out", help="Folder of the new run.")],
    prm: Annotated[
        str | None, typer.Option(help="Score the stored solutions with this reward model. Default: their scores.")
    ] = None,
    prm_revision: str | None,
    prm_api_key: str | None,
    aggregation: Annotated[
        Aggregation | None, typer.Option(help="Aggregation of step scores. Default: the run's.")
    ] = None,
    choose: Annotated[
        Choice | None, typer.Option(help="How the answer is chosen. Default: the chosen trajectory stays.")
    ] = None,
    answers: Annotated[
        Literal["math", "exact"] | None,
        typer.Option(help="How answers are compared. Default: as the evaluation set compares them (math)."),
    ] = None,
    as_json: bool,
    debug: bool,
) -> None:
    """Judge stored solutions again, without generating: another reward model, aggregation, vote or answer checker."""
    from infer.analysis.rescore import grader_of, rescore_run

    async def judge() -> int:
        async with AsyncExitStack() as stack:
            grader = Mathematics(answers) if answers is not None else grader_of(run)
            stack.push_async_callback(grader.close)
            verifier = None
            if prm is not None:
                backend = backends.find(backends.default())
                verifier = await VerifierRef.named(prm, prm_revision).open(backend, api_key=prm_api_key)
                stack.push_async_callback(verifier.close)
            return await rescore_run(
                run, to, grader, verifier=verifier, prm=prm, aggregation=aggregation, choose=choose
            )

    with ExitStack() as stack:
        if prm is not None and not debug:
            stack.enter_context(engine_noise_to(None))
        added = interrupts.run(judge())
    tally = Tally()
    for solution in read_solutions(to):
        tally.add(solution)
    if as_json:
        sys.stdout.write(json.dumps(summary_json(tally, 0.0, path=to)) + "\n")
    else:
        say(f"{added} solutions judged again, into {to}")
        print_summary(out, tally, path=to)
