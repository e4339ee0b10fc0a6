"""What can be counted on paper of a reward model, before anything is loaded."""

from infer.cost.model import ModelSpec
from infer.runs import models


def verifier_of(prm: str) -> tuple[ModelSpec | None, str]:
    """The sizes of what can be counted of `--prm`, and a line about the rest: empty if there is none."""
    spec, (_, members) = models.verifier_spec(prm), models.parse_verifier(prm)
    first = members[0].model
    if spec is None:
        why = "the generator judges itself" if first == models.SELF else f"the sizes of {first} are not known here"
        return None, f"not counted: --prm {prm}, as {why}"
    if len(members) > 1:
        return spec, f"not counted: --prm {prm} but for the first of its {len(members)} models, {first}"
    return spec, ""
