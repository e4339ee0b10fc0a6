"""Reward models that transformers has no class for, with the names of their published weights."""

from typing import Any

from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model, Qwen2PreTrainedModel


class Qwen2ProcessReward(Qwen2PreTrainedModel):  # type: ignore[misc]
    """Qwen2.5-Math-PRM: two labels from a head of two layers."""

    _keys_to_ignore_on_load_unexpected = (r"lm_head\.",)

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        size = config.hidden_size
        self.score = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 2))
        self.post_init()


class Qwen2ValueHead(Qwen2PreTrainedModel):  # type: ignore[misc]
    """Skywork-o1-Open-PRM: one value, from TRL's value head."""

    _keys_to_ignore_on_load_unexpected = (r"lm_head\.",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.v_head = nn.ModuleDict({"summary": nn.Linear(config.hidden_size, 1)})
        self.post_init()

    def score(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., 1]"""
        value: Tensor = self.v_head["summary"](hidden)
        return value
