"""The command line. It reads words and prints results; `infer.runs` does the work."""

import functools
import traceback
from typing import Any

import typer
import typer.main

from infer.cli import cost, grid, listing, report, rescore, show, solve  # noqa: F401  (they register their commands)
from infer.cli.app import app
from infer.cli.terminal import Unwritable, kept_log, last_error, log, results, say
from infer.core.interrupts import Interrupt
from infer.errors import ServerFailed, ToldElsewhere, UserError, WriteError
from infer.generate.address import without_secrets

CTRL_C, CLOSED_PIPE = 130, 141
"""Exit codes: 128 and the number of the signal, as of a program that it ends."""


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code. Prints an error as one line on standard error.

    The code is 0; 2 for what the user can put right, 1 for what broke, 130 for Ctrl-C, 141 where the reader of standard
    output has gone.
    """
    try:
        # not by `main`, which has ideas of its own about Ctrl-C and closed pipes
        with results(), _command().make_context("infer", arguments.copy()) as context:
            return int(context.command.invoke(context) or 0)
    except typer.Exit as done:  # --help
        return done.exit_code
    except UserError as error:
        problem, code = str(error), 2
        cause: Exception = error
        if isinstance(error, ToldElsewhere):
            problem += f": {last_error() or error.__cause__} (log: {kept_log()})"
    except (KeyboardInterrupt, Interrupt):
        return CTRL_C
    except Unwritable as error:
        if error.closed:
            return CLOSED_PIPE
        problem, code, cause = str(error), 2, error
    except Exception as error:
        cause = error
        usage_message = getattr(error, "format_message", None)  # typer's own usage errors
        first = (str(error).splitlines() or ["no message"])[0]
        if usage_message is not None:
            problem, code = f"{usage_message()} (see infer --help)", 2
        elif isinstance(error, WriteError):
            problem, code = first, 2
        elif isinstance(error, OSError) and error.filename is not None:
            problem, code = f"{error.filename}: {error.strerror}", 2
        else:
            problem, code = first if isinstance(error, ServerFailed) else f"{type(error).__name__}: {first}", 1
            if "root cause" in first:  # vLLM's word for what another process has said
                problem += f": {last_error()}"
    if "--debug" in arguments:
        raise cause
    if code == 1 and (path := log()) is not None:
        with path.open("a") as file:
            file.write(without_secrets("".join(traceback.format_exception(cause))))
        problem += f" (log: {kept_log()})"
    say(problem)
    return code


@functools.cache
def _command() -> Any:
    return typer.main.get_command(app)
