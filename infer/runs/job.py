"""A job: everything that says what `infer solve` does, checked before anything is loaded or spent."""

import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from infer.core.generator import Generator, Message, Sampling
from infer.core.grading import Grader, Tester, described_grader
from infer.core.interrupts import interruptible
from infer.core.ledger import UNITS, Budget, Ledger
from infer.core.options import MOST, MOST_TOKENS, Options
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
from infer.cost.hardware import HARDWARE
from infer.errors import UserError
from infer.evalsets import find as find_evalset
from infer.evalsets.base import MATHEMATICS, PLAIN, EvalSet
from infer.generate import backends
from infer.generate.address import Address
from infer.generate.backends import Backend, ModelArgs
from infer.runs.fields import HOW, MODELS, RUN, SAMPLING, WHAT, Flag, long_option
from infer.runs.models import DEFAULT_MODEL, DEFAULT_PRM, ModelRef, Profile, served_spec, share_memory
from infer.runs.verifiers import VerifierRef
from infer.strategies import find as find_strategy

logger = logging.getLogger(__name__)


# no field is an empty text: mostly a shell's variable that is not set, and never meant as the default
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_min_length=1)
INT64 = 2**63  # a seed is a column of tables
MOST_BATCH = 2**20
MOST_DEVICES = 1024


class Job(BaseModel):
    """The problems to solve, how, and with which models. Fields left None take the model's profile."""

    model_config = STRICT

    question: Annotated[str | None, Flag(None), Field(description="One question to solve, in place of --on.")] = None
    on: Annotated[
        str | None,
        Flag(WHAT),
        Field(
            description="Evaluation set by name (infer list evalsets), a JSONL, JSON, CSV, TSV or Parquet file, or a "
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
        Field(description=f"A packaged model, a folder, or a hub id. Default: {DEFAULT_MODEL}."),
    ] = None
    revision: Annotated[str | None, Flag(MODELS), Field(description="Revision of the model on the hub.")] = None
    prm: Annotated[
        str | None,
        Flag(MODELS),
        Field(
            description="Reward model: a packaged name, folder, hub id, or URL of a vLLM server; self; several as a,b, "
            "min:a,b or prod:a,b. Prefix the family if it cannot be detected (math-shepherd:DIR). Append #chains=N to "
            f"a judge. Default for nano models: {DEFAULT_PRM}."
        ),
    ] = None
    prm_revision: Annotated[str | None, Flag(MODELS), Field(description="Revision of the PRM on the hub.")] = None
    backend: Annotated[str, Flag(MODELS)] = Field(
        default_factory=backends.default,
        description="vllm, transformers, openai (a completions server), or another package's (infer list backends). "
        "Default: vllm if it is installed, else transformers.",
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
    top_k: Annotated[int, Flag(SAMPLING), Field(ge=0, lt=2**31, description="0 is off.")] = 0
    min_p: Annotated[float, Flag(SAMPLING), Field(ge=0, le=1, description="0 is off.")] = 0.0
    max_tokens: Annotated[
        int | None,
        Flag(SAMPLING),
        Field(ge=1, le=MOST_TOKENS, description="Maximum tokens per completion. Default: the profile's."),
    ] = None
    step_tokens: Annotated[
        int | None,
        Flag(SAMPLING),
        Field(ge=1, le=MOST_TOKENS, description="Maximum tokens per step. Default: the profile's."),
    ] = None
    stop: Annotated[
        tuple[str, ...],
        Flag(SAMPLING, escapes=True),
        Field(description=r"A string that ends a completion; \n in it is a line break."),
    ] = ()
    delimiter: Annotated[
        str | None,
        Flag(SAMPLING, escapes=True),
        Field(
            description=r"A string that ends a step; \n in it is a line break. Default: the profile's, a blank line.",
        ),
    ] = None
    max_context: Annotated[
        int | None,
        Flag(MODELS),
        Field(ge=1, le=MOST_TOKENS, description="Maximum tokens of prompt and completion. Default: the model's."),
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
        Field(ge=1, le=MOST_BATCH, description="Requests assumed to share each reading of the weights, in costs."),
    ] = 64
    seed: Annotated[int, Flag(HOW), Field(ge=-INT64, lt=INT64, description="Random seed of the run.")] = 0

    @field_validator("options", mode="before")
    @classmethod
    def _texts(cls, options: Any) -> Any:
        return tuple(f"{name}={value}" for name, value in options.items()) if isinstance(options, Mapping) else options


class Machine(BaseModel):
    """The machine of a job; it may differ from one resumption to the next."""

    model_config = STRICT

    concurrency: Annotated[
        int,
        Flag(RUN),
        Field(ge=1, le=MOST, description="Problems in flight at once; a large GPU needs more to be full."),
    ] = 64
    tensor_parallel: Annotated[
        int, Flag(MODELS), Field(ge=1, le=MOST_DEVICES, description="Number of GPUs that each model is split over.")
    ] = 1
    data_parallel: Annotated[
        int, Flag(MODELS), Field(ge=1, le=MOST_DEVICES, description="Copies of the generator.")
    ] = 1
    memory_fraction: Annotated[
        float,
        Flag(MODELS, long="--gpu-memory"),
        Field(ge=0.05, le=1, description="Share of the GPU's memory for the models."),
    ] = 0.9
    timeout: Annotated[
        float,
        Flag(MODELS),
        Field(gt=0, le=1e6, description="Seconds that a server may take for one whole reply; then it is asked again."),
    ] = 600.0
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
        self.backend: Backend = backends.find(job.backend)
        self.model = self._model(job)
        nano = self.model is not None and self.model.packaged
        verifier = VerifierRef.named(job.prm, job.prm_revision) if job.prm is not None else None
        self.strategy: Strategy = find_strategy(job.strategy)
        self.options: Options = self.strategy.configure(job.options)
        self.budget = Budget.parse(job.budget) if job.budget is not None else None
        self.pricing = Pricing(hardware.find(job.hardware), Serving(batch=job.batch))
        unit = UNITS[self.budget.unit] if self.budget is not None else None
        if unit is not None and unit.spent(Ledger(self.budget, self.pricing)) is None:
            raise UserError(f"{job.hardware} has no price: give the budget in flops or eflops")
        if unit is not None and unit.per_execution and not self.options.needs_tests:
            raise UserError(f"--budget {job.budget}: {job.strategy} executes no program: give it in tokens or seconds")
        if self.options.needs_verifier and verifier is None:
            if not nano:
                raise UserError(f"strategy {job.strategy} needs a process reward model: name one with --prm")
            verifier = VerifierRef.named(DEFAULT_PRM, job.prm_revision)
        self.verifier = verifier
        if not self.options.needs_verifier and unit is not None and unit.per_score:
            raise UserError(f"strategy {job.strategy} makes no verifier passes: give its budget in tokens or seconds")
        if job.on is None and job.question is None:
            if not nano:
                raise UserError("nothing to solve: give a question, or name problems with --on (infer list evalsets)")
            job = job.model_copy(update={"on": "nano"})
        names = {"model": self.model.name if self.model else None, "prm": verifier.name if verifier else None}
        self.job = job.model_copy(update=names)
        self.profile = self.model.profile if self.model else Profile()
        self.evalset = self._evalset(job, nano)
        if self.options.needs_tests and not isinstance(self.evalset.grader(), Tester):
            raise UserError(f"tests choose among programs only: {self.evalset.name} has none, humaneval and mbpp have")

    def _model(self, job: Job) -> ModelRef | None:
        """The model to generate with. One on a server need not be here; None: the only one that the server has."""
        if self.backend.local:
            if job.base_url is not None:
                raise UserError("--base-url needs --backend openai")
            return ModelRef.named(job.model or DEFAULT_MODEL, job.revision)
        if job.base_url is None:
            raise UserError(f"--backend {job.backend} needs --base-url, such as http://127.0.0.1:8000/v1")
        try:
            Address.parse(job.base_url)
        except UserError as error:
            raise UserError(f"--base-url {error}") from None
        return ModelRef(job.model, where=job.model) if job.model is not None else None

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
        return itertools.islice(self.evalset.problems(), limit)

    def config(self) -> dict[str, Any]:
        """The configuration that identifies a run: the job with its defaults filled in."""
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

    def defaults(self) -> dict[str, Any]:
        """The part of `config` that later versions may extend: the strategy's options at their defaults."""
        fields = type(self.options).model_fields.items()
        options = {name: field.get_default() for name, field in fields if not field.is_required()}
        return {"options": options}

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

    @property
    def reader_backend(self) -> Backend:
        """The backend that loads reward models."""
        return self.backend if self.backend.open_reader is not None else backends.find(backends.default())

    def check(self, machine: Machine) -> None:
        """Raises UserError for a setting that the backend does not read: it would have no effect."""
        ignored = set(self.backend.ignores)
        if self.verifier is not None and self.verifier.loads:
            ignored -= {"tensor_parallel", "memory_fraction"} - self.reader_backend.ignores
        for settings in (self.job, machine):
            for name, field in type(settings).model_fields.items():
                if name in ignored and (value := getattr(settings, name)) != field.default:
                    option = long_option(name, field)
                    raise UserError(f"{option} {value}: backend {self.backend.name} does not use it: leave it out")

    @asynccontextmanager
    async def open(self, machine: Machine) -> AsyncIterator["Session"]:
        """Loads the models and makes the grader; closes them on the way out."""
        self.check(machine)
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
    """Loads the models of a plan and makes its grader; closes them on the way out."""
    ours, theirs = _shares(plan, machine) if with_verifier else (machine.memory_fraction, machine.memory_fraction)
    async with AsyncExitStack() as stack:
        with interruptible():
            generator = await plan.backend.open_generator(_generator_args(plan, machine, ours))
        stack.push_async_callback(generator.close)
        verifier = None
        if with_verifier:
            assert plan.verifier is not None
            with interruptible():
                verifier = await plan.verifier.open(
                    plan.reader_backend,
                    generator=generator,
                    tensor_parallel=machine.tensor_parallel,
                    memory_fraction=theirs,
                    api_key=machine.prm_api_key,
                    timeout=machine.timeout,
                )
            stack.push_async_callback(verifier.close)
        grader = plan.evalset.grader()
        stack.push_async_callback(grader.close)
        yield Models(generator, verifier, grader)


def _generator_args(plan: Plan, machine: Machine, memory_fraction: float) -> ModelArgs:
    job, model = plan.job, plan.model
    if model is not None and plan.backend.local:
        _ = model.config  # engines report a model that is not there in many more words
    return ModelArgs(
        model=model.where if model is not None else None,
        revision=job.revision,
        dtype=job.dtype or plan.profile.dtype,
        max_context=job.max_context,
        tensor_parallel=machine.tensor_parallel,
        data_parallel=machine.data_parallel,
        memory_fraction=memory_fraction,
        base_url=job.base_url,
        api_key=machine.api_key,
        timeout=machine.timeout,
        spec_of=lambda name: served_spec(name, job.dtype),
    )


def _shares(plan: Plan, machine: Machine) -> tuple[float, float]:
    """The share of each GPU's memory for the generator, and for a reward model beside it. Logged where they differ."""
    fraction = machine.memory_fraction
    assert plan.verifier is not None
    if plan.backend.device_memory is None or not plan.verifier.loads:
        return fraction, fraction
    assert plan.model is not None
    memory = plan.backend.device_memory()
    if memory is not None:
        memory *= machine.tensor_parallel  # both are split over as many GPUs, evenly: a share of one is a share of all
    shares = share_memory(plan.model.spec_if_known(plan.job.dtype), plan.verifier.spec, fraction, memory)
    logger.info("memory: %.2f of it for %s, %.2f for %s", shares[0], plan.model.name, shares[1], plan.verifier.name)
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
            "grader": described_grader(self.setting.grader),
        }
