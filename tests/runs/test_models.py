"""Models by name: how two of them share a device."""

import pytest

from infer.errors import UserError
from infer.runs import models


def test_two_models_share_a_device_by_their_sizes() -> None:
    generator, verifier = models.spec("Qwen/Qwen3-1.7B"), models.spec("Qwen/Qwen2.5-Math-PRM-7B")
    device = 80e9
    ours, theirs = models.share_memory(generator, verifier, 0.9, device)
    assert ours + theirs == pytest.approx(0.9)
    room = [ours * device - generator.params * 2, theirs * device - verifier.params * 2]
    tokens = [room[0] / (generator.kv_size * 2), room[1] / (verifier.kv_size * 2)]
    assert tokens[0] == pytest.approx(tokens[1])  # both caches hold the same trajectories
    assert tokens[0] > 100_000
    on_cpu = models.share_memory(generator, verifier, 0.9, None)
    assert on_cpu[0] / on_cpu[1] == pytest.approx(generator.kv_size / verifier.kv_size)


def test_weights_that_do_not_fit_are_said() -> None:
    large = models.spec("Qwen/Qwen3-32B")
    with pytest.raises(UserError, match=r"65.5 GB and 14.2 GB.* do not fit into 90% of 80 GB: serve the reward model"):
        models.share_memory(large, models.spec("Qwen/Qwen2.5-Math-PRM-7B"), 0.9, 80e9)
