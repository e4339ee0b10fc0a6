"""The application that the commands register with."""

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from infer import __version__
from infer.cli.terminal import out
from infer.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Any])


class _Command(TyperCommand):
    """Refuses an option that is given twice and is not repeatable: the last one would win without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        *_, given = self.make_parser(ctx).parse_args(args=list(args))
        for option, times in Counter(given).items():
            if times > 1 and not (getattr(option, "multiple", False) or getattr(option, "is_flag", False)):
                raise UserError(f"{option.opts[0]} is given {times} times: this command takes one")
        return super().parse_args(ctx, args)


class _App(typer.Typer):
    def command(self, *args: Any, **kwargs: Any) -> Callable[[Function], Function]:
        return super().command(*args, cls=_Command, **kwargs)


app = _App(
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
