"""`python -m infer` and the console script."""

from infer.cli import main

if __name__ == "__main__":
    main()
