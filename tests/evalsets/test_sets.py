"""Sets by name and by hub id, and the templates that put their problems to a model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infer import evalsets
from infer.core.problem import Problem
from infer.errors import UserError
from infer.evalsets import Template, find, names
from infer.evalsets.base import MATHEMATICS
from infer.runs.job import Job, Plan
from tests.packages import install

DATA = Path(os.environ.get("INFER_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
NAMED = {"math500": 500, "aime24": 30, "aime25": 30, "amc23": 40, "gsm8k": 1319}


def message(spec: str, **options: str) -> str:
    with pytest.raises(UserError) as caught:
        find(spec, **options).load()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_names() -> None:
    assert {*NAMED, "nano"} <= set(names())
    assert names() == sorted(names())


@pytest.mark.parametrize("name", NAMED)
def test_named_sets_are_pinned(name: str) -> None:
    found = find(name)
    repo, _, revision = found.source.partition("@")
    assert (found.name, repo.count("/"), len(revision)) == (name, 1, 40)
    assert found.template == MATHEMATICS
    assert str(NAMED[name]) in found.summary


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise RuntimeError('set MY_HOME\\n first')", "can't be read: RuntimeError: set MY_HOME first"),
        ("yield Problem('a', '1+1'); raise OSError('gone')", "can't be read: OSError: gone"),
        ("yield Problem('a', '1+1'); yield Problem('b', '1'); yield Problem('a', '2')", "id 'a' occurs twice"),
        ("yield {'id': 'a'}", "has a dict, which is no Problem"),
        ("return None", "can't be read: TypeError: 'NoneType'"),
    ],
)
def test_a_set_of_another_package_that_is_wrong_is_named(
    body: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"""
from infer.core.problem import Problem
from infer.evalsets.base import EvalSet
def load():
    {body}
MINE = EvalSet("mine", "one of mine", "procedural", load)
"""
    install(tmp_path, monkeypatch, "infer.evalsets", "mine = elsewhere:MINE", source)
    with pytest.raises(UserError) as caught:
        list(Plan(Job(on="mine")).problems(None))
    assert str(caught.value).startswith("evaluation set mine")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names() -> None:
    text = message("maht500")
    assert text.startswith("unknown evaluation set 'maht500': did you mean math500?")
    assert "owner/name" in text
    assert ".jsonl" in text


def test_options_that_a_registered_set_does_not_take() -> None:
    assert "columns and split are fixed" in message("math500", split="train")
    assert "columns and split are fixed" in message("math500", answer_column="answer")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("no_such_module:X", "ModuleNotFoundError"),
        ("json:X", "AttributeError"),
        ("json:dumps", "TypeError: it is a function, not infer.evalsets.base.EvalSet"),
    ],
)
def test_a_broken_registration_names_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    install(tmp_path, monkeypatch, evalsets.GROUP, f"mine = {value}")
    with pytest.raises(UserError, match=f"evaluation set 'mine' can't be loaded from {value}: {expected}"):
        evalsets.find("mine")


def test_templates_keep_every_brace() -> None:
    problem = Problem(id="1", prompt="Let {x} be \\frac{1}{2} of {problem}.")
    [only] = MATHEMATICS.messages(problem)
    assert only["role"] == "user"
    assert only["content"].startswith("Let {x} be \\frac{1}{2} of {problem}.\n\nReason step by step")
    assert only["content"].endswith("\\boxed{}.")
    both = Template("{problem}", system="Be brief {}.").messages(problem)
    assert [m["role"] for m in both] == ["system", "user"]
    assert both[0]["content"] == "Be brief {}."
    assert both[1]["content"] == problem.prompt
    with pytest.raises(UserError, match=r"lacks \{problem\}"):
        Template("Solve it.")


def offline(code: str, cache: Path) -> str:
    """The output of a fresh interpreter without the hub, whose library decides at import whether to use the hub."""
    imports = "from infer.errors import UserError\nfrom infer.evalsets import find"
    code = f"{imports}\ntry:\n  {code}\nexcept UserError as e: print(e)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_offline_and_not_cached(tmp_path: Path) -> None:
    assert offline("find('math500').load()", tmp_path) == (
        "math500 is not in the local cache and the Hugging Face hub (HuggingFaceH4/MATH-500) can't be reached; "
        "use a local copy: --on FILE.jsonl"
    )


def test_offline_and_cached_at_the_pinned_revision_only(tmp_path: Path) -> None:
    repo, revision = find("math500").source.split("@")
    snapshots = tmp_path / "hub" / f"datasets--{repo.replace('/', '--')}" / "snapshots"
    other = snapshots / ("0" * 40)
    other.mkdir(parents=True)
    (other / "test.jsonl").write_text(json.dumps({"problem": "another", "answer": "1"}))
    assert "not in the local cache" in offline("find('math500').load()", tmp_path)
    (snapshots / revision).mkdir()
    row = {"problem": "q", "solution": "s", "answer": "\\frac{1}{2}", "level": 3, "unique_id": "test/algebra/1.json"}
    (snapshots / revision / "test.jsonl").write_text(json.dumps(row))
    shown = offline("p, = find('math500').load(); print(p.id, p.prompt, p.answer, p.level, p.source)", tmp_path)
    assert shown == "test/algebra/1.json q \\frac{1}{2} 3 math500"


def test_a_hub_id_offline_and_not_cached(tmp_path: Path) -> None:
    shown = offline("find('owner/name').load()", tmp_path)
    assert shown.startswith("owner/name is neither a file nor in the local cache, and the Hugging Face hub can't be")
    assert "\n" not in shown


class Builder:
    """A data set builder as `datasets` gives it, with two splits."""

    hash = "a" * 40

    def __init__(self, *splits: str) -> None:
        self.info = SimpleNamespace(splits=dict.fromkeys(splits))

    def download_and_prepare(self) -> None:
        pass

    def as_dataset(self, split: str) -> list[dict[str, Any]]:
        return [{"question": f"{split} {n}", "answer": n} for n in range(2)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    import datasets

    fake = SimpleNamespace(builder=Builder("train", "test"), asked=None, error=None)

    def load_dataset_builder(*args: Any, **options: Any) -> Any:
        fake.asked = (*args, options)
        if fake.error:
            raise fake.error
        return fake.builder

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    return fake


def test_hub_ids(hub: SimpleNamespace) -> None:
    found = find("owner/name@v1.0:main")
    assert hub.asked is None, "nothing is fetched before load()"
    assert (found.name, found.source) == ("name", "owner/name@v1.0:main")
    assert [(p.id, p.prompt, p.answer) for p in found.load()] == [
        ("name-0001", "test 0", "0"),
        ("name-0002", "test 1", "1"),
    ]
    assert hub.asked == ("owner/name", "main", {"revision": "v1.0"})
    find("owner/name").load()
    assert hub.asked == ("owner/name", None, {"revision": None})


def test_the_split_is_test_else_validation_else_train(hub: SimpleNamespace) -> None:
    def first(**options: str) -> str:
        return next(find("owner/name", **options).load()).prompt

    assert first(split="train") == "train 0"
    hub.builder = Builder("train", "validation")
    assert first() == "validation 0"
    hub.builder = Builder("train")
    assert first() == "train 0"
    assert message("owner/name", split="dev") == "owner/name has no split 'dev'; choose one with --split: train"
    hub.builder = Builder("easy", "hard")
    assert "has none of the splits test, validation, train; choose one with --split: easy, hard" in message(
        "owner/name"
    )


def test_hub_mistakes_are_one_line(hub: SimpleNamespace) -> None:
    assert "row 1: no column 'nix'" in message("owner/name", answer_column="nix")
    hub.error = ValueError("Config name is missing.\nPlease pick one")
    assert message("owner/name") == "owner/name can't be loaded from the Hugging Face hub: Config name is missing"


def test_another_revision_out_of_the_cache_is_refused(hub: SimpleNamespace) -> None:
    """Offline, `datasets` takes the newest version it has cached, whatever revision it was asked for."""
    from datasets.packaged_modules.cache.cache import Cache

    class Cached(Builder, Cache):
        pass

    hub.builder = Cached("test")
    find(f"owner/name@{'a' * 40}").load()
    find("owner/name").load()
    assert f"the local cache holds owner/name at {'a' * 40}" in message("owner/name@v2")


@pytest.mark.parametrize(("file", "count"), [("math500.jsonl", 500), ("aime2024.jsonl", 30)])
def test_public_benchmarks_as_files(file: str, count: int) -> None:
    path = DATA / file
    if not path.exists():
        pytest.skip(f"{path} is not here; INFER_TEST_DATA can name another folder with it")
    found = list(find(str(path)).load())
    assert len(found) == len({p.id for p in found}) == count
    assert all(p.answer for p in found)
