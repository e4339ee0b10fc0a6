"""`infer solve`: problems, a strategy, a budget."""

import asyncio
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from infer.cli import options
from infer.cli.app import app, examples
from infer.cli.display import ProgressBar, print_solution, print_summary
from infer.cli.options import fresh_folder, job_of
from infer.cli.recorder import Recorder, say_failures
from infer.cli.terminal import engine_noise_to, err, out, say
from infer.core.tally import Tally, summary_json
from infer.errors import UserError
from infer.runs.job import Machine, Plan, open_models
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
def solve(
    question: options.Question = None,
    on: options.On = None,
    limit: options.Limit = None,
    problem_column: options.ProblemColumn = None,
    answer_column: options.AnswerColumn = None,
    id_column: options.IdColumn = None,
    split: options.Split = None,
    strategy: options.Strategy = "greedy",
    option: options.Option = None,
    budget: options.Budget = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    prm: options.Prm = None,
    revision: options.Revision = None,
    prm_revision: options.PrmRevision = None,
    backend: options.Backend = None,
    base_url: options.BaseUrl = None,
    api_key: options.ApiKey = None,
    prm_api_key: options.PrmApiKey = None,
    dtype: options.Dtype = None,
    max_context: options.MaxContext = None,
    hardware: options.Hardware = "h100",
    batch: options.Batch = 64,
    tensor_parallel: options.TensorParallel = 1,
    data_parallel: options.DataParallel = 1,
    gpu_memory: options.GpuMemory = 0.9,
    temperature: options.Temperature = None,
    top_p: options.TopP = 1.0,
    top_k: options.TopK = 0,
    min_p: options.MinP = 0.0,
    max_tokens: options.MaxTokens = None,
    step_tokens: options.StepTokens = None,
    stop: options.Stop = None,
    delimiter: options.Delimiter = None,
    run_folder: options.RunFolder = None,
    concurrency: options.Concurrency = 64,
    trace: options.Trace = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Solve problems with a strategy, within a budget, everything counted."""
    plan = Plan(job_of(locals(), option or []))
    if question is not None and limit is not None:
        raise UserError(f"--limit {limit}: a question is a single problem: leave it out")
    machine = Machine(concurrency, tensor_parallel, data_parallel, gpu_memory, api_key, prm_api_key)
    return _solve(plan, machine, run_folder, limit, trace=trace, as_json=as_json, debug=debug)


def _solve(
    plan: Plan, machine: Machine, folder: Path | None, limit: int | None, *, trace: bool, as_json: bool, debug: bool
) -> int:
    """Runs a plan, shows how it goes and what came of it."""
    start = time.monotonic()
    asked = {problem.id for problem in plan.problems(limit)}
    if not asked:
        raise UserError(f"{plan.evalset.name} has no problems")
    total = len(asked)
    if folder is None and (plan.job.question is None or trace):
        folder = fresh_folder(f"{Path(plan.evalset.name).stem}-{plan.strategy.name}")
    earlier = Tally()
    with ExitStack() as stack:
        run = stack.enter_context(Run.open(folder, plan.config(), describe_machine())) if folder is not None else None
        if not debug:
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
                session = plan.session(loaded, run.traces() if run is not None and trace else None)
                if run is not None:
                    run.add_facts(session.describe())
                waiting = (problem for problem in plan.problems(limit) if problem.id not in done)
                await session.solve(waiting, record, machine.concurrency)

        try:
            if not asked <= done:
                asyncio.run(session())
        except KeyboardInterrupt:
            resume = f"; the same command with --run {folder} goes on" if folder is not None else ""
            say(f"stopped: {len(done & asked)} of {total} problems are done and kept{resume}")
            return 130
    seconds = time.monotonic() - start
    if as_json:
        summary = summary_json(record.tally, seconds, earlier=earlier, path=folder)
        if record.only is not None:
            summary["solution"] = record.only.model_dump(mode="json")
        sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
    elif record.only is not None:
        print_solution(out, next(plan.problems(1)), record.only)
    elif plan.job.question is None:
        print_summary(out, record.tally, seconds, earlier=earlier, path=folder)
    return say_failures(record.failures)
