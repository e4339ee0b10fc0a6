"""A job: everything that says what `infer solve` does, checked before anything is loaded or spent."""

import itertools
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from infer.core.generator import Generator, Message, Sampling
from infer.core.options import Options
from infer.core.pricing import Pricing
from infer.core.problem import Problem
from infer.core.search import Setting
from infer.core.solution import Solution
from infer.core.solve import Failure, solve
from infer.core.strategy import Strategy
from infer.core.usage import Budget
from infer.core.verifier import Verifier
from infer.cost import hardware
from infer.cost.formulas import Serving
from infer.cost.hardware import HARDWARE
from infer.errors import UserError
from infer.evalsets import find as find_evalset
from infer.evalsets.base import MATHEMATICS, PLAIN, EvalSet
from infer.evalsets.graders.mathematics import AnswerChecker, extract
from infer.runs import models
from infer.runs.fields import HOW, MODELS, RUN, SAMPLING, WHAT, Flag
from infer.strategies import find as find_strategy

logger = logging.getLogger(__name__)

REQUESTS = 256
"""Open at once with a server, as many as a vLLM server runs at once by default. `Machine.concurrency` counts problems,
and each of them has several requests."""


class Job(BaseModel):
    """What to solve, how, with which models. Fields left None take the model's profile."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    question: Annotated[str | None, Flag(None), Field(description="One question to solve, in place of --on.")] = None
    on: Annotated[
        str | None,
        Flag(WHAT),
        Field(
            description="Evaluation set by name (infer list evalsets), a JSONL, JSON, CSV or Parquet file, or a "
            "dataset OWNER/NAME of the hub. Default with a packaged model: nano."
        ),
    ] = None
    problem_column: Annotated[str | None, Flag(WHAT), Field(description="Column of the problem's text.")] = None
    answer_column: Annotated[str | None, Flag(WHAT), Field(description="Column of the reference answer.")] = None
    id_column: Annotated[str | None, Flag(WHAT), Field(description="Column of a unique id.")] = None
    split: Annotated[str | None, Flag(WHAT), Field(description="Split of a hub dataset.")] = None
    strategy: Annotated[str, Flag(HOW, "-s"), Field(description="Strategy by name (infer list strategies).")] = "greedy"
    options: Annotated[
        tuple[str, ...], Flag(HOW, "-o", "--option", "KEY=VALUE"), Field(description="An option of the strategy.")
    ] = ()
    budget: Annotated[
        str | None,
        Flag(HOW, "-b"),
        Field(
            description="Budget per problem, never exceeded: generated tokens (4k, 4096tok), verifier passes (64prm), "
            "seconds (30s), or the cost of both models (2e12flops, 5e15eflops, 0.002usd)."
        ),
    ] = None
    model: Annotated[
        str | None,
        Flag(MODELS, "-m"),
        Field(description=f"A packaged model, a folder, or a hub id. Default: {models.DEFAULT_MODEL}."),
    ] = None
    revision: Annotated[str | None, Flag(MODELS), Field(description="Revision of the model on the hub.")] = None
    prm: Annotated[
        str | None,
        Flag(MODELS),
        Field(
            description="Reward model: a packaged name, folder, hub id, or URL of a vLLM server; self; several as a,b, "
            "min:a,b or prod:a,b. Prefix the family if it cannot be detected (math-shepherd:DIR). Append #chains=N to "
            f"a judge. Default for nano models: {models.DEFAULT_PRM}."
        ),
    ] = None
    prm_revision: Annotated[str | None, Flag(MODELS), Field(description="Revision of the PRM on the hub.")] = None
    backend: Annotated[models.Backend, Flag(MODELS)] = Field(
        default_factory=models.default_backend,
        description="vllm, transformers, or openai (a completions server). Default: vllm if it is installed, else "
        "transformers.",
    )
    base_url: Annotated[
        str | None, Flag(MODELS), Field(description="URL of the server, such as http://127.0.0.1:8000/v1.")
    ] = None
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"] | None,
        Flag(MODELS),
        Field(description="auto, bfloat16, float16 or float32. Default: the profile's."),
    ] = None
    # the bounds are vLLM's
    temperature: Annotated[
        float | None, Flag(SAMPLING), Field(ge=0, le=2, description="0 is greedy. Default: the model's profile.")
    ] = None
    top_p: Annotated[float, Flag(SAMPLING), Field(gt=0, le=1, description="Nucleus sampling; 1 is off.")] = 1.0
    top_k: Annotated[int, Flag(SAMPLING), Field(ge=0, description="0 is off.")] = 0
    min_p: Annotated[float, Flag(SAMPLING), Field(ge=0, le=1, description="0 is off.")] = 0.0
    max_tokens: Annotated[
        int | None, Flag(SAMPLING), Field(ge=1, description="Maximum tokens per completion. Default: the profile's.")
    ] = None
    step_tokens: Annotated[
        int | None, Flag(SAMPLING), Field(ge=1, description="Maximum tokens per step. Default: the profile's.")
    ] = None
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Flag(SAMPLING, escapes=True),
        Field(description=r"A string that ends a completion; \n in it is a line break."),
    ] = ()
    delimiter: Annotated[
        str | None,
        Flag(SAMPLING, escapes=True),
        Field(
            min_length=1,
            description=r"A string that ends a step; \n in it is a line break. Default: the profile's, a blank line.",
        ),
    ] = None
    max_context: Annotated[
        int | None,
        Flag(MODELS),
        Field(ge=1, description="Maximum tokens of prompt and completion. Default: the model's."),
    ] = None
    hardware: Annotated[
        str,
        Flag(MODELS),
        Field(
            description=f"Device that costs are counted for: {', '.join(HARDWARE)}, or cpu (measured by infer hardware "
            "--measure)."
        ),
    ] = "h100"
    batch: Annotated[
        int,
        Flag(MODELS),
        Field(ge=1, description="Requests assumed to share each reading of the weights, in costs."),
    ] = 64
    seed: Annotated[int, Flag(HOW), Field(description="Random seed of the run.")] = 0

    @field_validator("options", mode="before")
    @classmethod
    def _texts(cls, options: Any) -> Any:
        return tuple(f"{name}={value}" for name, value in options.items()) if isinstance(options, Mapping) else options


class Machine(BaseModel):
    """Where a job runs; it may differ from one resumption to the next."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    concurrency: Annotated[
        int, Flag(RUN), Field(ge=1, description="Problems in flight at once; a large GPU needs more to be full.")
    ] = 64
    tensor_parallel: Annotated[
        int, Flag(MODELS), Field(ge=1, description="Number of GPUs that each model is split over.")
    ] = 1
    data_parallel: Annotated[int, Flag(MODELS), Field(ge=1, description="Copies of the generator.")] = 1
    memory_fraction: Annotated[
        float,
        Flag(MODELS, long="--gpu-memory"),
        Field(ge=0.05, le=1, description="Share of the GPU's memory for the models."),
    ] = 0.9
    api_key: Annotated[
        str | None,
        Flag(MODELS, envvar="OPENAI_API_KEY"),
        Field(repr=False, description="API key of the server."),
    ] = None
    # no other key is sent there: the two servers may be strangers to each other
    prm_api_key: Annotated[
        str | None,
        Flag(MODELS, envvar="INFER_PRM_API_KEY"),
        Field(repr=False, description="API key of the servers that --prm names."),
    ] = None


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
        if self.budget and self.budget.unit == "dollars" and self.pricing.hardware.price is None:
            raise UserError(f"{job.hardware} has no price: give the budget in flops or eflops")
        if self.options.needs_verifier and job.prm is None:
            if not nano:
                raise UserError(f"strategy {job.strategy} needs a process reward model: name one with --prm")
            job = job.model_copy(update={"prm": models.DEFAULT_PRM})
        if not self.options.needs_verifier and self.budget and self.budget.unit == "prm":
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
        """Loads the models and the answer checker; closes them on the way out."""
        async with open_models(self.job, machine, with_verifier=self.options.needs_verifier) as loaded:
            yield self.session(loaded)

    def session(self, loaded: "Models", traces: Path | None = None) -> "Session":
        """This plan on models that are loaded already; `traces` is a folder to keep the search trees in."""
        setting = Setting(
            generator=loaded.generator,
            verifier=loaded.verifier if self.options.needs_verifier else None,
            group=loaded.checker.group,
            extract=extract,
            sampling=self.sampling,
            budget=self.budget,
            seed=self.job.seed,
            delimiter=self.delimiter,
            step_tokens=self.step_tokens,
            pricing=self.pricing,
            traces=traces,
        )
        return Session(self, setting, loaded.checker)


@dataclass(frozen=True, slots=True)
class Models:
    """What a job's models became once loaded."""

    generator: Generator
    verifier: Verifier | None
    checker: AnswerChecker


@asynccontextmanager
async def open_models(job: Job, machine: Machine, *, with_verifier: bool) -> AsyncIterator[Models]:
    """Loads the models of a job whose defaults are filled in, and the answer checker; closes them on the way out."""
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
        yield Models(generator, verifier, await stack.enter_async_context(AnswerChecker()))


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
    checker: AnswerChecker

    async def solve(
        self, problems: Iterator[Problem], record: Callable[[Solution | Failure], None], concurrency: int = 64
    ) -> None:
        """Solves problems and hands each outcome to `record` (see `infer.core.solve.solve`)."""

        async def grade(reference: str, answer: str) -> tuple[bool, str | None]:
            verdict = await self.checker.equal(reference, answer)
            return verdict.equal, "comparing the answers took too long: not equal" if verdict.timed_out else None

        plan = self.plan
        await solve(
            problems, plan.messages, self.setting, plan.strategy, plan.options, grade, record, concurrency=concurrency
        )

    def describe(self) -> dict[str, Any]:
        """The engines that really ran, for the run's record."""
        verifier = self.setting.verifier
        return {
            "hardware": asdict(self.setting.pricing.hardware),
            "generator": self.setting.generator.describe(),
            "verifier": verifier.describe() if verifier is not None else None,
        }
