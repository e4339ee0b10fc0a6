"""The application that the commands register with."""

from typing import Annotated

import typer

from infer import __version__
from infer.cli.terminal import out

app = typer.Typer(
    name="infer",
    help="A research engine for inference-time compute: how answers get better when more is spent at decoding time.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(__version__)
    elif context.invoked_subcommand is None:
        out.print(context.get_help())


def examples(*commands: str) -> str:
    """The examples at the end of a command's help."""
    return "\n\n".join(["[bold]Examples[/bold]", *commands])
