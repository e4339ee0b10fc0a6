"""`python -m infer` and the console script."""

import io
import os
import sys
from typing import NoReturn

from infer.core import interrupts


def main() -> NoReturn:
    """Runs the command line."""
    interrupts.watch()
    _prepare_streams()
    # vLLM's processes are spawned, as by its own command line: forks of one that has threads and a GPU can hang or fail
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    try:
        from infer.cli import run  # here, since Ctrl-C may come while it is loaded

        code = run(sys.argv[1:])
    except (KeyboardInterrupt, interrupts.Interrupt):
        code = 130
    if code == 130 and interrupts.came is not None:
        code = 128 + interrupts.came
    sys.exit(code)


def _prepare_streams() -> None:
    """Opens what the caller has closed (`2>&-`): else a file opened later gets its number, and what is printed.

    A character that standard output can't encode is escaped, as on standard error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
