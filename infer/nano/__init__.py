"""The nano family: four language models and a process reward model, small enough to ship with the package.

They solve procedurally generated arithmetic (`infer.nano.problems`) often but not always, so that a laptop shows the
effects of search in minutes. `python -m infer.nano.train all` trains all of them from scratch.
"""

from pathlib import Path

CHECKPOINTS: Path = Path(__file__).parent / "checkpoints"
"""The folder of the trained checkpoints, one Hugging Face folder each."""


def checkpoint(name: str) -> Path:
    """The folder of a checkpoint by its name: `nano-xs`, `nano-s`, `nano-m`, `nano-l`, `nano-prm-s`, ...

    Raises:
        ValueError: if there is no such checkpoint; the message lists the known ones.
    """
    folder = CHECKPOINTS / name.removeprefix("nano-")
    if not name.startswith("nano-") or not (folder / "config.json").is_file():
        names = ", ".join(sorted(f"nano-{path.parent.name}" for path in CHECKPOINTS.glob("*/config.json")))
        raise ValueError(f"unknown nano checkpoint {name!r}; there are: {names or 'none (train them first)'}")
    return folder
