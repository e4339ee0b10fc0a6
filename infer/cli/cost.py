"""`infer cost` and `infer hardware`: costs on paper, and the devices they are counted for."""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from infer import strategies
from infer.cli.app import app, examples
from infer.cli.counted import verifier_of
from infer.cli.options import options_of_fields
from infer.cli.terminal import engine_noise_to, out, say
from infer.core import interrupts
from infer.core.formats import quantity
from infer.core.ledger import Budget
from infer.core.options import MOST, MOST_TOKENS, Options
from infer.cost import hardware as devices
from infer.cost.estimate import STEP_TOKENS, Estimate, estimate
from infer.cost.formulas import Serving
from infer.cost.hardware import HARDWARE, Hardware
from infer.cost.runtime import Runtime
from infer.errors import UserError
from infer.runs.calibrate import calibrate, check_device
from infer.runs.job import MOST_BATCH
from infer.runs.models import DEFAULT_MODEL, ModelRef
from infer.runs.verifiers import VerifierRef

SAMPLES = 16
"""Trajectories that `infer cost` assumes."""


@app.command(
    epilog=examples(
        "infer cost --model nano-m --strategy best-of-n --n 32 --tokens 200 --prm nano-prm-s --hardware h100",
        "infer cost --model Qwen/Qwen3-8B --strategy beam --n 16 --branches 4 --tokens 8k --hardware h200",
    )
)
@options_of_fields()
def cost(
    *,
    model: str | None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy", "-s", help="Strategy by name, of those whose samples are known beforehand, such as beam."
        ),
    ] = "best-of-n",
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            "-n",
            min=1,
            max=MOST,
            help=f"The strategy's option n: trajectories, or next steps of all beams. Default: {SAMPLES}.",
        ),
    ] = None,
    branches: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="The strategy's option width: next steps sampled after each beam. Default: its own."
        ),
    ] = None,
    options: tuple[str, ...],
    tokens: Annotated[str, typer.Option(help="Tokens of one trajectory, such as 8k.")] = "1k",
    prompt: Annotated[str, typer.Option(help="Tokens of the prompt.")] = "256",
    prm: Annotated[
        str | None, typer.Option(help="Reward model that scores all trajectories.", show_default=False)
    ] = None,
    step_tokens: Annotated[
        int,
        typer.Option(
            min=1, help="Tokens of one step: a strategy that scores each step reads the reward model once for each."
        ),
    ] = STEP_TOKENS,
    hardware: str,
    dtype: Annotated[str | None, typer.Option(help="Type of the weights. Default: the model's own.")] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_BATCH, help="Requests that share each reading of the weights. Default: all branches."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the estimate as JSON.")] = False,
    debug: bool,
) -> None:
    """Estimate what one problem costs: FLOPs, bytes, device time and dollars of generator and verifier."""
    if dtype == "":
        raise UserError("--dtype is empty: leave it out")
    configured = _configure(strategy, n, branches, options)
    shape = configured.shape()
    if shape is None:
        raise UserError(
            f"the samples of {strategy} depend on what it finds and on its budget: infer sweep --dry-run prices budgets"
        )
    device = devices.find(hardware)
    verifier, uncounted = verifier_of(VerifierRef.named(prm)) if prm is not None else (None, "")
    paper = estimate(
        ModelRef.named(model or DEFAULT_MODEL).spec(dtype),
        device,
        samples=shape.trajectories,
        tokens=_count("--tokens", tokens),
        prompt=_count("--prompt", prompt),
        branches=shape.branches,
        step=step_tokens if configured.scores_steps else None,
        verifier=verifier,
        serving=Serving(batch=batch) if batch is not None else None,
    )
    if as_json:
        sys.stdout.write(json.dumps({**asdict(paper), "uncounted": uncounted or None}) + "\n")
        return
    _print(paper, device)
    if verifier is not None and configured.scores_steps:
        out.print(Text(f"the reward model reads each step, of {step_tokens} tokens, in a pass of its own", "dim"))
    if uncounted:
        out.print(Text(uncounted, "dim"))


def _configure(strategy: str, n: int | None, branches: int | None, options: Sequence[str]) -> Options:
    """The options of a strategy, as --n, --branches and --option set them. Raises UserError."""
    found = strategies.find(strategy)
    known = found.options.model_fields
    named = {option.partition("=")[0].strip() for option in options}
    if n is None and "n" not in named:
        n = SAMPLES
    given = [f"n={n}"] if "n" in known and n is not None else []
    if branches is not None:
        if "width" not in known:
            raise UserError(f"--branches {branches}: {strategy} samples whole trajectories: leave it out")
        given.append(f"width={branches}")
    if {"n", "width"} <= known.keys() and n is not None and n % (width := branches or known["width"].default):
        raise UserError(f"--n {n} is not divisible by --branches {width}: each beam samples as many next steps")
    return found.configure([*given, *options])


def _count(option: str, text: str) -> int:
    try:
        budget = Budget.parse(text)
    except UserError:
        budget = None
    if budget is None or budget.unit != "tokens" or budget.amount > MOST_TOKENS:
        raise UserError(f"{option} {text}: not a number of tokens, such as 4096 or 8k, up to {MOST_TOKENS:,}")
    return int(budget.amount)


def _print(paper: Estimate, device: Hardware) -> None:
    names = ("tokens", "FLOPs", "bytes", "eFLOPs", "device time", "dollars")
    columns = (Column(name, no_wrap=True, justify="right") for name in names)
    table = Table(Column("", no_wrap=True), *columns, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for row in paper.rows:
        table.add_row(
            row.part,
            f"{row.tokens:,}",
            quantity(row.flops),
            quantity(row.bytes, "B"),
            quantity(row.eflops),
            quantity(row.seconds, "s"),
            f"{row.dollars:.2g}" if row.dollars is not None else "-",
            style="bold" if row.part == "total" else "",
        )
    out.print(table)
    price = f", at ${device.price:g} an hour" if device.price is not None else ""
    fits = "" if paper.memory <= device.memory else f": more than the {quantity(device.memory, 'B')} of one device"
    out.print(Text(f"one problem on one {device.name} at its roofline{price}; an engine takes longer", "dim"))
    out.print(Text(f"weights and caches at the end: {quantity(paper.memory, 'B')}{fits}", "dim"))


@app.command(
    epilog=examples("infer hardware", "infer hardware --measure", "infer hardware --calibrate nano-s"),
)
@options_of_fields()
def hardware(
    *,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine's CPU; it is then 'cpu'.")] = False,
    calibrate_model: Annotated[
        str | None,
        typer.Option(
            "--calibrate", metavar="MODEL", help="Time a model's prefill and decode here, and fit its runtime to them."
        ),
    ] = None,
    on: Annotated[
        str | None, typer.Option("--on", help="The device that --calibrate runs on. Default: cpu.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
    debug: bool,
) -> None:
    """List the devices that costs are counted for, measure this one, or calibrate a model's runtime on it."""
    if on is not None and calibrate_model is None:
        raise UserError(f"--on {on}: it says where --calibrate runs: name a model with --calibrate")
    if calibrate_model is not None:
        fitted = _calibrate(calibrate_model, on or devices.THIS_CPU, debug)
        if as_json:
            sys.stdout.write(json.dumps(asdict(fitted)) + "\n")
            return
        for name, line in (("prefill", fitted.prefill), ("decode", fitted.decode)):
            out.print(f"{name}: {quantity(line.overhead, 's')} a pass + {line.slowdown:.2f} x roofline")
        return
    found = {devices.THIS_CPU: devices.measure()} if measure else {**HARDWARE, **_measured()}
    if as_json:
        sys.stdout.write(json.dumps({name: asdict(device) for name, device in found.items()}) + "\n")
        return
    names = ("", "FLOP/s by dtype", "bandwidth", "memory", "FLOPs per byte", "$ an hour")
    table = Table(*names, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, device in found.items():
        first = next(iter(device.peak))
        table.add_row(
            Text(f"{name}  {device.name}"),
            ", ".join(f"{dtype} {quantity(rate)}" for dtype, rate in device.peak.items()),
            quantity(device.bandwidth, "B/s"),
            quantity(device.memory, "B"),
            f"{device.intensity(first):.0f} ({first})",
            f"{device.price:g}" if device.price is not None else "-",
        )
    out.print(table)


def _measured() -> dict[str, Hardware]:
    try:
        return {devices.THIS_CPU: devices.find(devices.THIS_CPU)}
    except UserError:
        return {}


def _calibrate(model: str, on: str, debug: bool) -> Runtime:
    from infer.core.generator import Sampling
    from infer.generate.engine import device_name, start_engine
    from infer.generate.vllm import sampling_options

    if on != devices.THIS_CPU:
        devices.find(on)  # a name that nobody knows is refused as such
    check_device(on, device_name())
    found = ModelRef.named(model)
    device = devices.measure() if on == devices.THIS_CPU else devices.find(on)
    say(f"timing {model} on {device.name}: about a minute")

    async def timed() -> Runtime:
        with interrupts.interruptible():
            engine = start_engine(found.where, "generate", dtype=found.profile.dtype, memory_fraction=0.4)
        try:
            if engine.spec is None:
                raise UserError(f"{model}: the sizes of its architecture are not known")
            sampling = sampling_options(engine, Sampling(temperature=1.0), 0)
            return await calibrate(engine, engine.spec, device, sampling)
        finally:
            await engine.close()

    with ExitStack() as stack:
        if not debug:
            stack.enter_context(engine_noise_to(None))
        fitted = interrupts.run(timed())
    fitted.keep(model)
    return fitted
