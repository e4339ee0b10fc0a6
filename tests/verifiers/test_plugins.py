"""Verifiers of other packages: `--prm mine`, `--prm mine:MODEL`, and families that are detected like ours."""

from pathlib import Path
from typing import Any

import pytest

from infer.core.problem import Problem
from infer.core.tree import Aggregation
from infer.errors import UserError
from infer.generate.backends import TRANSFORMERS
from infer.nano import checkpoint
from infer.runs.verifiers import VerifierRef
from infer.testing.toy import ToyVerifier
from infer.verifiers import families
from tests.packages import install

SOURCE = '''
from dataclasses import replace

from infer.verifiers.classifier import CLASSIFIER
from infer.testing.toy import ToyVerifier

opened = []

async def open_toy(args):
    """A toy, which scores by a hash.

    It is no model.
    """
    opened.append(args)
    return ToyVerifier("mean")

HASHED = replace(CLASSIFIER, name="hashed", recognizes=lambda name, config: config.get("architectures") == ["Hashed"])
'''
ENTRIES = "toy = elsewhere:open_toy\nhashed = elsewhere:HASHED\nwrong = elsewhere:opened\nnowhere = nowhere:open_toy"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "infer.verifiers", ENTRIES, SOURCE)


async def opened(name: str, **options: Any) -> tuple[Any, Any]:
    """The verifier that --prm names, and the last arguments of its function."""
    verifier = await VerifierRef.named(name, "main").open(TRANSFORMERS, **options)
    import elsewhere  # type: ignore[import-not-found]

    return verifier, elsewhere.opened[-1]


async def test_a_function_opens_a_verifier_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint("nano-s"))  # this folder has a model, but none is named
    assert not VerifierRef.named("toy").loads
    assert VerifierRef.named("toy").spec is None
    generator: Any = object()
    verifier, args = await opened("toy", generator=generator, memory_fraction=0.4, tensor_parallel=2, api_key="key")
    assert isinstance(verifier, ToyVerifier)
    assert (args.model.model, args.model.revision, args.model.api_key) == (None, "main", "key")
    assert (args.model.memory_fraction, args.model.tensor_parallel, args.chains) == (0.4, 2, 1)
    assert args.generator is generator
    assert args.backend is TRANSFORMERS


@pytest.mark.parametrize(
    ("name", "given", "loads"),
    [
        ("toy:nano-prm-s", str(checkpoint("nano-prm-s")), True),
        ("toy:owner/model#chains=3", "owner/model", True),
        ("toy:temperature=3", "temperature=3", False),
        ("toy:http://127.0.0.1:9", "http://127.0.0.1:9", False),
        ("toy:self", "self", False),
    ],
)
async def test_a_function_gets_what_stands_after_the_colon(name: str, given: str, loads: bool) -> None:
    assert VerifierRef.named(name).loads == loads
    _, args = await opened(name)
    assert args.model.model == given
    assert args.chains == (3 if "#" in name else 1)
    assert args.model.dtype == ("float32" if "nano" in name else "auto")


async def test_it_stands_in_ensembles() -> None:
    verifier, args = await opened("min:toy,toy:x", memory_fraction=0.4)
    aggregation: Aggregation = "mean"
    assert verifier.describe()["family"] == "min of 2"
    assert verifier.aggregation == aggregation
    assert args.model.memory_fraction == 0.2


def test_a_family_of_another_package_is_recognized_and_listed() -> None:
    assert families.recognize("any", {"architectures": ["Hashed"]}) == "hashed"
    assert {"classifier", "toy", "hashed"} <= set(families.names())
    assert families.about("toy").startswith("A toy, which scores by a hash.\n")
    assert families.about("hashed").startswith("Step classifiers over a chat")
    (member,) = VerifierRef.named("hashed:owner/model").members
    assert (member.family, member.name) == ("hashed", "owner/model")


@pytest.mark.models
async def test_a_family_of_another_package_scores() -> None:
    """The package's family is ours under another name, so the scores are the same."""
    scores = []
    for name in ("hashed:nano-prm-s", "nano-prm-s"):
        verifier = await VerifierRef.named(name).open(TRANSFORMERS)
        scores.append(
            (await verifier.score(Problem("p", "1+2=?"), ["1+2=3\n\n", "Answer: \\boxed{3}"], 0, True)).values
        )
        await verifier.close()
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert verifier.describe()["family"] == "classifier"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tooy:x", "unknown family 'tooy': did you mean toy?"),
        ("hashed:", "no model is named"),
        ("hashed", "no model is named"),
        (
            "wrong:x",
            "verifier 'wrong' can't be loaded from elsewhere:opened: TypeError: it is a list, neither",
        ),
        ("nowhere:x", "verifier 'nowhere' can't be loaded from nowhere:open_toy: ModuleNotFoundError"),
    ],
)
def test_a_plugin_that_does_not_fit_is_an_error_of_one_line(name: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        VerifierRef.named(name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
