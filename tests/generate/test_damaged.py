"""Engines on hostile and damaged checkpoints: no code of a folder is run, NaN is an error of the request it hits."""

import asyncio
import io
import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from infer.core.generator import Completion, Request, Sampling
from infer.errors import UserError
from infer.generate.backends import ModelArgs, find
from tests.damage import CONFIGS, TEMPLATES, TOKENIZERS, WEIGHTS, Damage, code, copied, nan_for, weights
from tests.engines import open_generator, open_verifier

pytestmark = pytest.mark.models

BACKENDS = ["transformers", "vllm"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(name)
    return name


# Code


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What planted code would touch, while every question on standard input is answered with yes."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    return tmp_path / "mark"


NEVER = "needs Python code of its own, and the code of a checkpoint is never run"


async def opened(open_model: Any, name: str, backend: str) -> str:
    """Opens and closes a model. Returns the error, empty where there is none."""
    try:
        await (await open_model(name, backend, dtype="float32")).close()
    except UserError as error:
        return str(error)
    return ""


def test_code_of_a_generator_is_never_run(backend: str, mark: Path, tmp_path: Path) -> None:
    """Of a model that transformers knows itself it is not needed; of another it is refused."""
    known, unknown = copied(tmp_path / "known"), copied(tmp_path / "unknown")
    code(mark)(known)
    code(mark, model_type="planted", architectures=["PlantedForCausalLM"])(unknown)
    assert asyncio.run(opened(open_generator, str(known), backend)) == ""
    assert asyncio.run(opened(open_generator, str(unknown), backend)).startswith(f"model {unknown} {NEVER}")
    assert not mark.exists()


def test_code_of_a_reward_model_is_never_run(backend: str, mark: Path, tmp_path: Path) -> None:
    known, unknown = (copied(tmp_path / name, "nano-prm-s") for name in ("known", "unknown"))
    code(mark)(known)
    code(mark, model_type="planted", architectures=["PlantedForSequenceClassification"])(unknown)
    assert asyncio.run(opened(open_verifier, str(known), backend)) == ""
    assert f"model {unknown} {NEVER}" in asyncio.run(opened(open_verifier, f"classifier:{unknown}", backend))
    assert not mark.exists()


def test_a_command_asks_nothing_and_runs_no_code(tmp_path: Path) -> None:
    """As `yes | infer solve`, which ran it: transformers asks on standard input unless it is told not to."""
    folder = copied(tmp_path / "model", "nano-prm-s")
    code(tmp_path / "mark", model_type="planted", architectures=["PlantedForSequenceClassification"])(folder)
    command = [sys.executable, "-m", "infer", "solve", "1+1=?", "-s", "best-of-n", "--backend", "transformers"]
    done = subprocess.run(
        [*command, "--prm", f"classifier:{folder}"], input="y\n" * 100, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"reward model {folder} {NEVER}" in done.stderr
    assert not (tmp_path / "mark").exists()


# Damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        CONFIGS["0 heads"],
        WEIGHTS["more layers than weights"],
        WEIGHTS["pickled weights alone"],
        TOKENIZERS["tokenizer.json cut"],
        TEMPLATES["a template that leaves the sandbox"],
    ],
)
async def test_no_engine_starts_on_a_damaged_checkpoint(
    backend: str, damage: Damage, says: str, tmp_path: Path
) -> None:
    folder = copied(tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match=says):
        await find(backend).open_generator(ModelArgs(model=str(folder)))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("model.layers.2.input_layernorm.weight"),
        lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"][:5]}),
    ],
    ids=["a weight missing", "a weight too short"],
)
async def test_damage_that_only_an_engine_sees_is_one_line_too(backend: str, change: Any, tmp_path: Path) -> None:
    folder = copied(tmp_path / "model")
    weights(change)(folder)
    with pytest.raises(UserError) as error:
        await open_generator(str(folder), backend, dtype="float32")
    assert str(folder) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


# NaN


def fill(name: str, value: float) -> Damage:
    def change(tensors: dict[str, Any]) -> None:
        tensors[name].flat[3] = value

    return weights(change)


@pytest.mark.parametrize(
    "damage",
    [fill("model.layers.1.mlp.down_proj.weight", math.nan), fill("model.norm.weight", math.inf)],
    ids=["NaN in a layer", "infinity in the norm"],
)
async def test_nan_weights_are_told_as_the_model_is_opened(backend: str, damage: Damage, tmp_path: Path) -> None:
    folder = copied(tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match=f"model {folder} computes NaN where logits should be: its weights"):
        await open_generator(str(folder), backend, dtype="float32")


async def test_nan_weights_of_a_reward_model_are_told_as_it_is_opened(backend: str, tmp_path: Path) -> None:
    folder = copied(tmp_path / "model", "nano-prm-s")
    fill("model.norm.weight", math.nan)(folder)
    with pytest.raises(UserError, match=f"model {folder} computes NaN where logits should be: its weights"):
        await open_verifier(str(folder), backend, dtype="float32")


async def test_nan_on_the_way_is_an_error_of_its_request_alone(backend: str, tmp_path: Path) -> None:
    """A token is embedded as NaN: only what contains it is refused, in one batch with what does not."""
    folder = copied(tmp_path / "model")
    (token,) = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("*").ids
    nan_for(token)(folder)
    generator = await open_generator(str(folder), backend, dtype="float32")

    async def answer(text: str, temperature: float, logprobs: bool) -> list[Completion]:
        prompt = await generator.tokenize(text)
        request = Request(prompt, Sampling(temperature=temperature), 1, n=2, seed=1, logprobs=logprobs)
        return await generator.generate(request)

    # of one token each: another might be the one
    ways = list(itertools.product((0.0, 1.0), (False, True)))
    hit = await asyncio.gather(
        *(answer(text, *way) for way in ways for text in ("3*4=?", "3+4=?")), return_exceptions=True
    )
    for error in hit[::2]:
        assert isinstance(error, UserError)
        assert "computes NaN" in str(error)
    for spared, way in zip(hit[1::2], ways, strict=True):
        assert not isinstance(spared, BaseException)
        assert [each.tokens for each in spared] == [each.tokens for each in await answer("3+4=?", *way)]
    await generator.close()
