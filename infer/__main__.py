"""`python -m infer` and the console script."""

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line."""
    # vLLM's processes are spawned, as by its own command line: forks of one that has threads and a GPU can hang or fail
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    try:
        from infer.cli import main as command_line  # here, since Ctrl-C may come while it is loaded

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
