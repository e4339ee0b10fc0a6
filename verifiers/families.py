"""The families of reward models, and how a checkpoint's own is told."""

from collections.abc import Mapping
from pathlib import Path

from infer.errors import UserError
from infer.verifiers.classifier import CLASSIFIER
from infer.verifiers.gen_prm import GenPRM
from infer.verifiers.math_shepherd import MATH_SHEPHERD
from infer.verifiers.outcome import OUTCOME
from infer.verifiers.prm import Config, Family, architecture, labels
from infer.verifiers.qwen_prm import QWEN_PRM
from infer.verifiers.rlhflow_prm import RLHFLOW_PRM
from infer.verifiers.skywork_prm import SKYWORK_PRM
from infer.verifiers.think_prm import ThinkPRM

READ: Mapping[str, Family] = {
    family.name: family for family in (CLASSIFIER, OUTCOME, QWEN_PRM, SKYWORK_PRM, RLHFLOW_PRM, MATH_SHEPHERD)
}
"""Read at a position."""

JUDGES: Mapping[str, type[GenPRM] | type[ThinkPRM]] = {"gen-prm": GenPRM, "think-prm": ThinkPRM}
"""Write a critique first."""

NAMES = [*READ, *JUDGES]


def recognize(model: str, config: Config) -> str:
    """The family of a checkpoint, by its name and its config.json. Raises UserError where neither tells."""
    # the last part of each alone: an owner, or a folder on the way, says nothing about the model
    name = " ".join(Path(source).name for source in (model, config.get("_name_or_path") or "")).lower()
    for family in READ.values():
        if family.recognizes(name, config):
            return family.name
    for judge in JUDGES:
        if judge.replace("-", "") in name:
            return judge
    described = architecture(config)
    if described.endswith("ForSequenceClassification"):
        described += f" with {labels(config)} labels"
    raise UserError(
        f"reward model {model} is a {described}, which does not tell its family: put one before it, as in "
        f"math-shepherd:{model} (known: {', '.join(NAMES)})"
    )
