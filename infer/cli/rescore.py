"""`infer rescore`: the solutions of a run, judged again."""

import json
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from infer.cli.app import app, examples
from infer.cli.display import print_summary
from infer.cli.folders import SkipBad, bad_lines, folder
from infer.cli.options import options_of_fields
from infer.cli.recorder import Failures
from infer.cli.terminal import engine_noise_to, out, say
from infer.core import interrupts
from infer.core.choice import Choice
from infer.core.records import OnBad
from infer.core.tally import Tally, summary_json
from infer.core.tree import Aggregation
from infer.errors import UserError
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
    run: Annotated[Path, typer.Argument(help="Folder of a run.", parser=folder)],
    to: Annotated[Path, typer.Option("--out", help="Folder of the new run.", parser=folder)],
    prm: Annotated[
        str | None, typer.Option(help="Score the stored solutions with this reward model. Default: their scores.")
    ] = None,
    prm_revision: str | None,
    prm_api_key: str | None,
    timeout: float,
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
    skip_bad: SkipBad = False,
    as_json: bool,
    debug: bool,
) -> int:
    """Judge stored solutions again, without generating: another reward model, aggregation, vote or answer checker."""
    from infer.analysis.rescore import grader_of, rescore_run

    failures = Failures()
    named = VerifierRef.named(prm, prm_revision) if prm is not None else None

    async def judge(on_bad: OnBad | None) -> int:
        async with AsyncExitStack() as stack:
            grader = grader_of(run)
            stack.push_async_callback(grader.close)
            if answers is not None:
                if not isinstance(grader, Mathematics):
                    raise UserError(f"--answers {answers}: the answers of {run} are no mathematics: leave it out")
                grader = Mathematics(answers)
                stack.push_async_callback(grader.close)
            verifier = None
            if named is not None:
                backend = backends.find(backends.default())
                verifier = await named.open(backend, api_key=prm_api_key, timeout=timeout)
                stack.push_async_callback(verifier.close)
            name = named.name if named is not None else None
            return await rescore_run(
                run,
                to,
                grader,
                verifier=verifier,
                prm=name,
                aggregation=aggregation,
                choose=choose,
                failed=failures.add,
                on_bad=on_bad,
            )

    with ExitStack() as stack:
        if prm is not None and not debug:
            stack.enter_context(engine_noise_to(None))
        on_bad = stack.enter_context(bad_lines(skip_bad))
        added = interrupts.run(judge(on_bad))
    tally = Tally()
    for solution in read_solutions(to):
        tally.add(solution)
    if as_json:
        summary = summary_json(tally, 0.0, path=to)
        sys.stdout.write(json.dumps({**summary, "failures": failures.as_json()}) + "\n")
    else:
        say(f"{added} solutions judged again, into {to}")
        print_summary(out, tally, path=to)
    return failures.say()
