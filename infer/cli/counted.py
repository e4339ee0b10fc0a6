"""Reward models on paper: their sizes, as far as they are known before anything is loaded."""

from infer.cost.model import ModelSpec
from infer.runs import models


def verifier_of(prm: str) -> tuple[ModelSpec | None, str]:
    """The sizes of `--prm`, as far as they can be counted, and a line that names the rest: empty if nothing is left."""
    spec, (_, members) = models.verifier_spec(prm), models.parse_verifier(prm)
    first = members[0].model
    if spec is None:
        why = "the generator judges itself" if first == models.SELF else f"the sizes of {first} are not known here"
        return None, f"not counted: --prm {prm}, as {why}"
    if len(members) > 1:
        return spec, f"not counted: --prm {prm} but for the first of its {len(members)} models, {first}"
    return spec, ""
