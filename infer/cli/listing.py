"""`infer list`: what there is."""

import inspect
from collections.abc import Callable
from textwrap import indent
from typing import Annotated, Any, get_args, get_origin

import typer
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from infer import evalsets, strategies
from infer.cli.app import app, examples
from infer.cli.terminal import out
from infer.errors import UserError, nearest
from infer.generate import backends
from infer.nano import checkpoint
from infer.runs.models import packaged
from infer.runs.verifiers import SELF
from infer.verifiers import families, self_evaluation


@app.command(
    name="list",
    epilog=examples(
        "infer list strategies", "infer list strategies --show astar", "infer list evalsets --show math500"
    ),
)
def list_(
    kind: Annotated[str, typer.Argument(help="strategies, evalsets, verifiers, backends or models.")],
    show: Annotated[str | None, typer.Option(metavar="NAME", help="All about one of them.")] = None,
) -> None:
    """List what there is: strategies with their options, evaluation sets, verifiers, backends, packaged models."""
    listings: dict[str, Callable[[str | None], None]] = {
        "strategies": _list_strategies,
        "evalsets": _list_evalsets,
        "verifiers": _list_verifiers,
        "backends": _list_backends,
        "models": _list_models,
    }
    if kind not in listings:
        raise UserError(f"can't list {kind!r}: {nearest(kind, listings)}")
    listings[kind](show)


def _list_strategies(name: str | None) -> None:
    if name is not None:
        strategy = strategies.find(name)
        out.print(_strategy(name), Text(inspect.getdoc(inspect.getmodule(strategy.run)) or ""), sep="\n")
        return
    for known in strategies.names():
        out.print(_or_why(_strategy, known))


def _strategy(name: str) -> Group:
    """A strategy and its options."""
    strategy = strategies.find(name)
    table = Table.grid(Column(no_wrap=True), Column(no_wrap=True), Column(style="dim"), padding=(0, 2))
    for option, field in strategy.options.model_fields.items():
        default = "" if field.default is None else str(field.default)
        table.add_row(f"  -o {option}=", default, f"{field.description} ({_kind(field.annotation)})")
    return Group(Text.assemble((name, "bold"), " ", strategy.summary), table)


def _kind(annotation: Any) -> str:
    """A type as a user reads it: `int`, or the words to choose from."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    choices = [choice for choice in get_args(annotation) if choice is not type(None)]
    if not choices:
        return str(getattr(annotation, "__name__", annotation))
    return ", ".join(
        _kind(choice) if get_args(choice) or isinstance(choice, type) else str(choice) for choice in choices
    )


def _list_evalsets(name: str | None) -> None:
    if name is None:
        table = Table.grid(Column(style="bold", no_wrap=True), Column(), padding=(0, 2))
        for known in evalsets.names():
            table.add_row(known, _or_why(lambda name: Text(evalsets.find(name).summary), known))
        table.add_row("FILE", "a JSONL, JSON, CSV, TSV or Parquet file with a problem and an answer column")
        table.add_row("OWNER/NAME", "a dataset of the Hugging Face hub")
        out.print(table)
        return
    found = evalsets.find(name)
    out.print(Text(found.name, style="bold"), Text(found.summary))
    out.print(Text(f"source: {found.source}" + (f" ({found.license})" if found.license else "")))
    if found.template.system is not None:
        out.print(Text("system message:\n" + indent(found.template.system, "    ")))
    around = "the model's chat template, where it has one, goes around it"
    out.print(Text(f"user message ({around}):\n" + indent(found.template.user, "    ")))


def _list_verifiers(name: str | None) -> None:
    def about(known: str) -> str:
        return inspect.getdoc(self_evaluation) or "" if known == SELF else families.about(known)

    if name is not None:
        out.print(Text(name, style="bold"), Text(about(name)), sep="\n")
        return
    table = Table.grid(Column(style="bold", no_wrap=True), Column(), padding=(0, 2))
    for known in [*families.names(), SELF]:
        table.add_row(known, _or_why(lambda name: Text(about(name).partition("\n")[0]), known))
    out.print(table)


def _list_backends(name: str | None) -> None:
    def about(known: str) -> Text:
        return Text(inspect.getdoc(backends.find(known).open_generator) or "")

    if name is not None:
        out.print(Text(name, style="bold"), about(name), sep="\n")
        return
    table = Table.grid(Column(style="bold", no_wrap=True), Column(), padding=(0, 2))
    for known in backends.names():
        table.add_row(known, _or_why(about, known))
    out.print(table)


def _or_why(about: Callable[[str], RenderableType], name: str) -> RenderableType:
    """Returns the text about a name, or the error that keeps it from being shown: another package may be broken."""
    try:
        return about(name)
    except UserError as error:
        return Text(str(error), "dim")


def _list_models(name: str | None) -> None:
    if name is not None and name not in packaged():
        raise UserError(f"unknown model {name!r}: {nearest(name, packaged())}")
    table = Table.grid(Column(style="bold", no_wrap=True), Column(no_wrap=True), Column(), padding=(0, 2))
    for known in [name] if name else packaged():
        folder = checkpoint(known)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        role = "process reward model" if "-prm-" in known else "language model"
        table.add_row(known, f"{role}, {size / 1e6:.1f} MB", Text(str(folder), style="dim"))
    out.print(table)
