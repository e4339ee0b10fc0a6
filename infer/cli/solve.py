"""`infer solve`: problems, a strategy, a budget."""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from infer.cli.app import app, examples
from infer.cli.display import ProgressBar, print_solution, print_summary
from infer.cli.options import RunOptions, fresh_folder, options_of_fields
from infer.cli.recorder import Recorder
from infer.cli.terminal import engine_noise_to, err, out, say
from infer.core import interrupts
from infer.core.tally import Tally, summary_json
from infer.errors import ServerDown, UserError
from infer.runs.job import Job, Machine, Plan, open_models
from infer.runs.run import Run, describe_machine


@app.command(
    epilog=examples(
        "infer solve --strategy astar --budget 4k",
        'infer solve "What is 17*23?" --model Qwen/Qwen3-1.7B',
        "infer solve --on math500 --limit 50 --strategy best-of-n -o n=8 --budget 8k --model DIR --prm DIR "
        "--run runs/first",
        "infer solve --on mine.jsonl --strategy greedy --backend openai --base-url http://127.0.0.1:8000/v1",
    )
)
@options_of_fields()
def solve(job: Job, machine: Machine, how: RunOptions) -> int:
    """Solve problems with a strategy, within a budget, everything counted."""
    plan, limit = Plan(job), how.limit
    plan.check(machine)
    if job.question is not None and limit is not None:
        raise UserError(f"--limit {limit}: a question is a single problem: leave it out")
    start = time.monotonic()
    asked = {problem.id for problem in plan.problems(limit)}
    if not asked:
        raise UserError(f"{plan.evalset.name} has no problems")
    total = len(asked)
    folder = how.folder
    if folder is None and (job.question is None or how.trace):
        folder = fresh_folder(f"{Path(plan.evalset.name).stem}-{plan.strategy.name}")
    earlier = Tally()
    with ExitStack() as stack:
        run = None
        if folder is not None:
            run = stack.enter_context(Run.open(folder, plan.config(), describe_machine(), plan.defaults()))
        if not how.debug:
            stack.enter_context(engine_noise_to(folder))
        # solutions come in any order and --limit may have been larger: what the run holds besides is not counted
        for solution in run.solutions() if run is not None else ():
            if solution.problem_id in asked:
                earlier.add(solution)
        done = run.done if run is not None else set()
        if done:
            say(f"resuming {folder}: {len(done & asked)} of {total} problems are done")
        elif total > 1:
            budget = f" of {plan.budget} a problem" if plan.budget else ""
            model = plan.job.model or plan.job.base_url
            say(f"{plan.evalset.name}, {total} problems: {plan.strategy.name} with {model}{budget}, into {folder}")
        bar = stack.enter_context(ProgressBar(err, total, earlier)) if total > 1 else None
        record = Recorder(run, bar)

        async def session() -> None:
            async with open_models(plan, machine, with_verifier=plan.options.needs_verifier) as loaded:
                session = plan.session(loaded, run.traces() if run is not None and how.trace else None)
                if run is not None:
                    run.add_facts(session.describe())
                waiting = (problem for problem in plan.problems(limit) if problem.id not in done)
                await session.solve(waiting, record, machine.concurrency)

        try:
            if not asked <= done:
                interrupts.run(session())
        except (KeyboardInterrupt, ServerDown) as error:
            why = "stopped" if isinstance(error, KeyboardInterrupt) else str(error)
            resume = f"; the same command with --run {folder} goes on" if folder is not None else ""
            say(f"{why}: {len(done & asked)} of {total} problems are done and kept{resume}")
            if isinstance(error, KeyboardInterrupt):
                return 130
    seconds = time.monotonic() - start
    if how.as_json:
        summary = summary_json(record.tally, seconds, earlier=earlier, path=folder)
        summary["failures"] = record.failures.as_json()
        if record.only is not None:
            summary["solution"] = record.only.model_dump(mode="json")
        sys.stdout.write(json.dumps(summary) + "\n")
    elif record.only is not None:
        print_solution(out, next(plan.problems(1)), record.only)
    elif job.question is None:
        print_summary(out, record.tally, seconds, earlier=earlier, path=folder)
    return record.failures.say()
