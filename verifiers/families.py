"""The kinds of verifiers that --prm opens by name, and how the family of a checkpoint is recognized.

Another package adds one by an entry point in the group `infer.verifiers`. It names a `Family` (a reward model that is
read at a position), or an async function of `VerifierArgs` that returns any `Verifier`.
"""

import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infer.core import plugins
from infer.core.generator import Generator
from infer.core.tasks import closed_on_error
from infer.core.verifier import Verifier
from infer.errors import UserError, nearest
from infer.generate.backends import Backend, ModelArgs
from infer.verifiers.classifier import CLASSIFIER
from infer.verifiers.gen_prm import GenPRM
from infer.verifiers.math_shepherd import MATH_SHEPHERD
from infer.verifiers.outcome import OUTCOME
from infer.verifiers.prm import Config, Family, architecture, labels
from infer.verifiers.qwen_prm import QWEN_PRM
from infer.verifiers.rlhflow_prm import RLHFLOW_PRM
from infer.verifiers.skywork_prm import SKYWORK_PRM
from infer.verifiers.think_prm import ThinkPRM

GROUP = "infer.verifiers"


@dataclass(frozen=True, slots=True)
class VerifierArgs:
    """The one argument of a function that opens a verifier."""

    model: ModelArgs
    """`model.model` is what stands after the colon in `--prm mine:MODEL`, a packaged name replaced by its folder; None
    for `--prm mine`. The rest is the user's: revision, dtype, parallelism, share of the memory, API key."""
    backend: Backend
    """The one that reward models run on: `await backend.open_generator(model)` loads a judge."""
    generator: Generator | None
    """The run's own, which must not be closed; None where nothing is generated (`infer rescore`)."""
    chains: int = 1
    """Of `#chains=N`."""


Opener = Callable[[VerifierArgs], Awaitable[Verifier]]


def _judge(kind: Callable[[Generator, int], Verifier]) -> Opener:
    async def open_judge(args: VerifierArgs) -> Verifier:
        generator = await args.backend.open_generator(args.model)
        async with closed_on_error(generator):
            return kind(generator, args.chains)

    open_judge.__doc__ = sys.modules[kind.__module__].__doc__
    return open_judge


READ = (CLASSIFIER, OUTCOME, QWEN_PRM, SKYWORK_PRM, RLHFLOW_PRM, MATH_SHEPHERD)
"""Read at a position."""
JUDGES: Mapping[str, Opener] = {"gen-prm": _judge(GenPRM), "think-prm": _judge(ThinkPRM)}
"""Write a critique first."""
OURS: Mapping[str, Family | Opener] = {**{family.name: family for family in READ}, **JUDGES}


def names() -> list[str]:
    """All names: ours, then those of other packages."""
    return [*OURS, *(name for name in plugins.names(GROUP) if name not in OURS)]


def find(name: str) -> Family | Opener:
    """The family or function of this name; ours can't be replaced. Raises UserError: unknown, or not loadable."""
    if name in OURS:
        return OURS[name]
    if name not in names():
        raise UserError(f"unknown verifier {name!r}: {nearest(name, names())}")
    return plugins.load(GROUP, "verifier", name, _fit)


def _fit(found: Any) -> Family | Opener:
    if isinstance(found, Family):
        return found
    if inspect.iscoroutinefunction(found):
        opener: Opener = found
        return opener
    raise TypeError(f"it is a {type(found).__name__}, neither a Family nor an async function")


def about(name: str) -> str:
    """A text about it: the docstring of the module that a family is defined in, or of the function."""
    found = find(name)
    described = inspect.getmodule(found.layout) if isinstance(found, Family) else found
    return inspect.getdoc(described) or ""


def recognize(model: str, config: Config) -> str:
    """The family of a checkpoint, by its name and its config.json. Raises UserError where these do not show it."""
    # the last part of each alone: an owner, or a folder on the way, says nothing about the model
    name = " ".join(Path(source).name for source in (model, config.get("_name_or_path") or "")).lower()
    known = names()
    for each in known:
        try:
            found = find(each)
        except UserError:  # of another package, and broken: no reason to refuse this checkpoint
            continue
        if isinstance(found, Family):
            recognized = found.recognizes(name, config)
        else:
            recognized = each in JUDGES and each.replace("-", "") in name
        if recognized:
            return each
    described = architecture(config)
    if described.endswith("ForSequenceClassification"):
        described += f" with {labels(config)} labels"
    raise UserError(
        f"reward model {model} is a {described}, whose family can't be detected: put one before it, as in "
        f"math-shepherd:{model} (known: {', '.join(known)})"
    )
