"""`python -m infer` and the console script."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line."""
    try:
        from infer.cli import main as command_line  # here, since Ctrl-C may come while it is loaded

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
