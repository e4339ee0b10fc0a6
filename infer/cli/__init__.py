"""The command line. It reads words and prints results; `infer.runs` does the work."""

import sys
import traceback
from typing import NoReturn

from infer.cli import cost, grid, listing, report, rescore, show, solve  # noqa: F401  (they register their commands)
from infer.cli.app import app
from infer.cli.terminal import kept_log, last_error, log, say
from infer.errors import ServerFailed, ToldElsewhere, UserError, WriteError
from infer.generate.address import without_secrets


def main() -> NoReturn:
    """Runs the command line. Exit code 0; 2 for what the user can put right, 1 for what broke, 130 for Ctrl-C."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code. Prints an error as one line on standard error."""
    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except UserError as error:
        problem, code = str(error), 2
        cause: Exception = error
        if isinstance(error, ToldElsewhere):
            problem += f": {last_error() or error.__cause__} (log: {kept_log()})"
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        usage_message = getattr(error, "format_message", None)  # typer's own usage errors
        if usage_message is not None:
            problem, code, cause = f"{usage_message()} (see infer --help)", 2, error
        else:
            first = (str(error).splitlines() or ["no message"])[0]
            code = 2 if isinstance(error, WriteError) else 1
            told = isinstance(error, WriteError | ServerFailed)
            problem, cause = first if told else f"{type(error).__name__}: {first}", error
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
