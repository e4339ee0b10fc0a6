"""A job: everything that says what `infer solve` does, checked before anything is loaded or spent."""

import itertools
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from infer.core.generator import Generator, Message, Sampling
from infer.core.grading import Grader
from infer.core.ledger import UNITS, Budget, Ledger
from infer.core.options import Options
from infer.core.pricing import Pricing
from infer.core.problem import Problem
from infer.core.search import Setting
from infer.core.solution import Solution
from infer.core.solve import Failure, solve
from infer.core.strategy import Strategy
from infer.core.trace import Trace, Watch
from infer.core.verifier import Verifier
from infer.cost import hardware
from infer.cost.formulas import Serving
from infer.errors import UserError
from infer.evalsets import find as find_evalset
from infer.evalsets.base import MATHEMATICS, PLAIN, EvalSet
from infer.runs import models
from infer.strategies import find as find_strategy

logger = logging.getLogger(__name__)

REQUESTS = 256
"""Open at once with a server, as many as a vLLM server runs at once by default. `Machine.concurrency` counts problems,
and each of them has several requests."""


class Job(BaseModel):
    """What to solve, how, with which models. Fields left None take the model's profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str | None = None
    on: str | None = None
    problem_column: str | None = None
    answer_column: str | None = None
    id_column: str | None = None
    split: str | None = None
    strategy: str = "greedy"
    options: tuple[str, ...] = ()
    budget: str | None = None
    model: str | None = None
    revision: str | None = None
    prm: str | None = None
    prm_revision: str | None = None
    backend: models.Backend = Field(default_factory=models.default_backend)
    base_url: str | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = None
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)  # what vLLM takes
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    step_tokens: int | None = Field(None, ge=1)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    delimiter: str | None = Field(None, min_length=1)
    max_context: int | None = Field(None, ge=1)
    hardware: str = "h100"
    batch: int = Field(64, ge=1)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a job runs; it may differ from one resumption to the next."""

    concurrency: int = 64
    tensor_parallel: int = 1
    data_parallel: int = 1
    memory_fraction: float = 0.9
    api_key: str | None = None
    prm_api_key: str | None = None


class Plan:
    """A job resolved: strategy, options, budget, problems and templates found. Raises UserError for what is wrong."""

    def __init__(self, job: Job) -> None:
        if job.question is not None and job.on is not None:
            raise UserError("name one of a question and --on, not both")
        if job.question is not None and not job.question.strip():
            raise UserError("the question is empty")
        for name in ("problem_column", "answer_column", "id_column", "split"):
            if job.question is not None and getattr(job, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} says how to read what --on names: a question has none")
        if job.backend == "openai" and job.base_url is None:
            raise UserError("--backend openai needs --base-url, such as http://127.0.0.1:8000/v1")
        if job.backend != "openai":
            if job.base_url is not None:
                raise UserError("--base-url needs --backend openai")
            job = job.model_copy(update={"model": job.model or models.DEFAULT_MODEL})
        if job.model is not None and job.backend != "openai":
            models.locate(job.model)
        if job.prm is not None:
            models.parse_verifier(job.prm)
        nano = job.model is not None and models.is_nano(job.model)
        self.strategy: Strategy = find_strategy(job.strategy)
        self.options: Options = self.strategy.configure(job.options)
        self.budget = Budget.parse(job.budget) if job.budget is not None else None
        self.pricing = Pricing(hardware.find(job.hardware), Serving(batch=job.batch))
        unit = UNITS[self.budget.unit] if self.budget is not None else None
        if unit is not None and unit.spent(Ledger(self.budget, self.pricing)) is None:
            raise UserError(f"{job.hardware} has no price: give the budget in flops or eflops")
        if unit is not None and unit.per_execution:
            raise UserError(f"--budget {job.budget}: no verifier here executes programs: give it in tokens or seconds")
        if self.options.needs_verifier and job.prm is None:
            if not nano:
                raise UserError(f"strategy {job.strategy} needs a process reward model: name one with --prm")
            job = job.model_copy(update={"prm": models.DEFAULT_PRM})
        if not self.options.needs_verifier and unit is not None and unit.per_score:
            raise UserError(f"strategy {job.strategy} makes no verifier passes: give its budget in tokens or seconds")
        if job.on is None and job.question is None:
            if not nano:
                raise UserError("nothing to solve: give a question, or name problems with --on (infer list evalsets)")
            job = job.model_copy(update={"on": "nano"})
        self.job = job
        self.profile = models.profile(job.model)
        self.evalset = self._evalset(job, nano)

    def _evalset(self, job: Job, nano: bool) -> EvalSet:
        if job.question is not None:
            question = Problem("question", job.question)
            found = EvalSet("question", "one question", "command line", lambda: iter([question]), MATHEMATICS)
        else:
            assert job.on is not None
            found = find_evalset(
                job.on,
                problem_column=job.problem_column,
                answer_column=job.answer_column,
                id_column=job.id_column,
                split=job.split,
            )
        # nano models know chains of arithmetic, and no words that ask for something
        return replace(found, template=PLAIN) if nano else found

    def messages(self, problem: Problem) -> list[Message]:
        """The chat that puts a problem to the model."""
        return self.evalset.messages(problem)

    def problems(self, limit: int | None) -> Iterator[Problem]:
        """The problems, streamed; the first `limit` if given."""
        return itertools.islice(self.evalset.load(), limit)

    def config(self) -> dict[str, Any]:
        """What two runs must share to be the same run: the job with its defaults filled in."""
        template = self.evalset.template
        return {
            **self.job.model_dump(mode="json", exclude={"base_url"}),
            "options": self.options.model_dump(mode="json"),
            "budget": str(self.budget) if self.budget else None,
            "evalset": self.evalset.source,
            "template": {"system": template.system, "user": template.user},
            **{name: getattr(self.sampling, name) for name in ("temperature", "max_tokens")},
            "step_tokens": self.step_tokens,
            "delimiter": self.delimiter,
        }

    @property
    def sampling(self) -> Sampling:
        job, profile = self.job, self.profile
        return Sampling(
            temperature=profile.temperature if job.temperature is None else job.temperature,
            top_p=job.top_p,
            top_k=job.top_k,
            min_p=job.min_p,
            max_tokens=job.max_tokens or profile.max_tokens,
            stop=job.stop,
        )

    @property
    def step_tokens(self) -> int:
        return self.job.step_tokens or self.profile.step_tokens

    @property
    def delimiter(self) -> str:
        return self.job.delimiter or self.profile.delimiter

    @asynccontextmanager
    async def open(self, machine: Machine) -> AsyncIterator["Session"]:
        """Loads the models and makes the grader; closes them on the way out."""
        async with open_models(self, machine, with_verifier=self.options.needs_verifier) as loaded:
            yield self.session(loaded)

    def session(self, loaded: "Models", traces: Path | None = None) -> "Session":
        """This plan on models that are loaded already; `traces` is a folder to keep the search trees in."""
        setting = Setting(
            generator=loaded.generator,
            verifier=loaded.verifier if self.options.needs_verifier else None,
            grader=loaded.grader,
            sampling=self.sampling,
            budget=self.budget,
            seed=self.job.seed,
            delimiter=self.delimiter,
            step_tokens=self.step_tokens,
            pricing=self.pricing,
            watch=partial(Trace, traces) if traces is not None else Watch,
        )
        return Session(self, setting)


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a job, loaded, and the grader of its evaluation set."""

    generator: Generator
    verifier: Verifier | None
    grader: Grader


@asynccontextmanager
async def open_models(plan: Plan, machine: Machine, *, with_verifier: bool) -> AsyncIterator[Models]:
    """Loads the models of a plan's job and makes its grader; closes them on the way out."""
    job = plan.job
    async with AsyncExitStack() as stack:
        generator: Generator
        ours, theirs = _shares(job, machine, with_verifier)
        if job.backend == "openai":
            from infer.generate.openai import OpenAIGenerator

            assert job.base_url is not None
            generator = await OpenAIGenerator.connect(
                job.base_url,
                job.model,
                api_key=machine.api_key,
                max_context=job.max_context,
                concurrency=REQUESTS,
            )
            generator.spec = models.spec_if_known(generator.model, job.dtype, download=False)
        else:
            assert job.model is not None
            with interruptible():
                generator = models.open_generator(
                    job.model,
                    job.backend,
                    dtype=job.dtype,
                    revision=job.revision,
                    max_context=job.max_context,
                    tensor_parallel=machine.tensor_parallel,
                    data_parallel=machine.data_parallel,
                    memory_fraction=ours,
                )
        stack.push_async_callback(generator.close)
        verifier = None
        if with_verifier:
            assert job.prm is not None
            local = models.default_backend() if job.backend == "openai" else job.backend
            with interruptible():
                verifier = await models.open_verifier(
                    job.prm,
                    local,
                    generator=generator,
                    revision=job.prm_revision,
                    tensor_parallel=machine.tensor_parallel,
                    memory_fraction=theirs,
                    api_key=machine.prm_api_key,
                )
            stack.push_async_callback(verifier.close)
        grader = plan.evalset.grader()
        stack.push_async_callback(grader.close)
        yield Models(generator, verifier, grader)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C takes effect at once: asyncio waits with it for its next turn, which comes when the model is loaded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _shares(job: Job, machine: Machine, with_verifier: bool) -> tuple[float, float]:
    """What share of each GPU's memory generator and verifier get, where both run in vLLM here; said in the log."""
    fraction = machine.memory_fraction
    if job.backend != "vllm" or not with_verifier:
        return fraction, fraction
    assert job.model is not None
    assert job.prm is not None
    if not models.loads_verifier(job.prm):
        return fraction, fraction
    from infer.generate.engine import device_memory

    generator, verifier = models.spec_if_known(job.model, job.dtype), models.verifier_spec(job.prm)
    memory = device_memory()
    if memory is not None:
        memory *= machine.tensor_parallel  # both are split over as many GPUs, evenly: a share of one is a share of all
    shares = models.share_memory(generator, verifier, fraction, memory)
    logger.info("memory: %.2f of it for %s, %.2f for %s", shares[0], job.model, shares[1], job.prm)
    return shares


@dataclass(frozen=True, slots=True)
class Session:
    """A plan with its models loaded."""

    plan: Plan
    setting: Setting

    async def solve(
        self, problems: Iterator[Problem], record: Callable[[Solution | Failure], None], concurrency: int = 64
    ) -> None:
        """Solves problems and hands each outcome to `record` (see `infer.core.solve.solve`)."""
        plan = self.plan
        await solve(problems, plan.messages, self.setting, plan.strategy, plan.options, record, concurrency=concurrency)

    def describe(self) -> dict[str, Any]:
        """The engines that really ran, for the run's record."""
        verifier = self.setting.verifier
        return {
            "hardware": asdict(self.setting.pricing.hardware),
            "generator": self.setting.generator.describe(),
            "verifier": verifier.describe() if verifier is not None else None,
            "grader": self.setting.grader.describe(),
        }
