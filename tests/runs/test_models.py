"""Models by name: when their files are read, and how two models share a device."""

import json
from pathlib import Path

import pytest

from infer.errors import UserError
from infer.nano import checkpoint
from infer.runs.job import Job, Plan
from infer.runs.models import ModelRef, share_memory

PRM = ModelRef.named("Qwen/Qwen2.5-Math-PRM-7B")


def test_two_models_share_a_device_by_their_sizes() -> None:
    generator, verifier = ModelRef.named("Qwen/Qwen3-1.7B").spec(), PRM.spec()
    device = 80e9
    ours, theirs = share_memory(generator, verifier, 0.9, device)
    assert ours + theirs == pytest.approx(0.9)
    room = [ours * device - generator.params * 2, theirs * device - verifier.params * 2]
    tokens = [room[0] / (generator.kv_size * 2), room[1] / (verifier.kv_size * 2)]
    assert tokens[0] == pytest.approx(tokens[1])  # both caches hold equally many tokens
    assert tokens[0] > 100_000
    on_cpu = share_memory(generator, verifier, 0.9, None)
    assert on_cpu[0] / on_cpu[1] == pytest.approx(generator.kv_size / verifier.kv_size)


def test_weights_that_do_not_fit_are_refused() -> None:
    large = ModelRef.named("Qwen/Qwen3-32B").spec()
    with pytest.raises(UserError, match=r"65.5 GB and 14.2 GB.* do not fit into 90% of 80 GB: serve the reward model"):
        share_memory(large, PRM.spec(), 0.9, 80e9)


def test_a_config_is_read_once_and_only_when_it_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("{torn")
    model = ModelRef.named(str(tmp_path))
    with pytest.raises(UserError, match=r"config\.json: can't be read"):
        model.spec()
    file.write_text((checkpoint("nano-s") / "config.json").read_text())
    assert model.spec("float32") == ModelRef.named("nano-s").spec()
    file.write_text("{torn")
    assert model.config == json.loads((checkpoint("nano-s") / "config.json").read_text())
    assert model.spec("bfloat16").weight_bytes == 2


def test_a_packaged_model_is_known_by_name_and_by_folder() -> None:
    for name in ("nano-s", str(checkpoint("nano-s"))):
        model = ModelRef.named(name)
        assert (model.packaged, model.profile.dtype, model.where) == (True, "float32", str(checkpoint("nano-s")))
    assert not ModelRef.named("owner/nano-s").packaged


def test_a_plan_names_models_that_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan does not ask the hub before models are opened or their sizes are needed."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked"))
    plan = Plan(Job(model="owner/model", revision="abc", prm="owner/prm,self", prm_revision="def", on="nano"))
    assert plan.model == ModelRef("owner/model", "owner/model", "abc")
    assert plan.verifier is not None
    assert [member.model for member in plan.verifier.members] == [ModelRef("owner/prm", "owner/prm", "def"), None]
    assert plan.job.prm == "owner/prm,self"
    server = Plan(Job(backend="openai", base_url="http://127.0.0.1:9", model="gpt-9", on="nano"))
    assert server.model == ModelRef("gpt-9", "gpt-9")
    assert Plan(Job(backend="openai", base_url="http://127.0.0.1:9", on="nano")).model is None
