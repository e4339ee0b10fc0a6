"""Reward models on paper: their sizes, as far as they are known before anything is loaded."""

from infer.cost.model import ModelSpec
from infer.generate.address import without_secrets
from infer.runs.verifiers import SELF, VerifierRef


def verifier_of(prm: VerifierRef) -> tuple[ModelSpec | None, str]:
    """The sizes of `--prm`, as far as they can be counted, and a line that names the rest: empty if nothing is left."""
    spec, first = prm.spec, without_secrets(prm.members[0].name) or prm.name
    if spec is None:
        why = "the generator judges itself" if first == SELF else f"the sizes of {first} are not known here"
        return None, f"not counted: --prm {prm.name}, as {why}"
    if len(prm.members) > 1:
        return spec, f"not counted: --prm {prm.name} but for the first of its {len(prm.members)} models, {first}"
    return spec, ""
