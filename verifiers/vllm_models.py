"""Reward models for vLLM whose scores are read at a request's last token, through the prefix cache.

vLLM's own Qwen2ForProcessRewardModel returns all tokens' labels and therefore computes every prompt again; it does
not know value heads. `verifiers/vllm_plugin.py` makes these classes known to it. They lean on vLLM's model code (they
were written for 0.32): a change there shows when a model is loaded.
"""

from typing import Any

from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.pooler import DispatchPooler
from vllm.model_executor.models.interfaces_base import default_pooling_type
from vllm.model_executor.models.qwen2_rm import Qwen2RewardBaseModel
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper


class _ReadAtLast(Qwen2RewardBaseModel):  # type: ignore[misc]
    labels: int
    """Of the head."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        vllm_config.model_config.hf_config.num_labels = self.labels
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        assert vllm_config.model_config.pooler_config is not None
        self.pooler = DispatchPooler.for_seq_cls(vllm_config.model_config.pooler_config)


@default_pooling_type(seq_pooling_type="LAST")
class InferQwen2ProcessReward(_ReadAtLast):
    """Qwen2.5-Math-PRM."""

    labels = 2


@default_pooling_type(seq_pooling_type="LAST")
class InferQwen2ValueHead(_ReadAtLast):
    """Skywork-o1-Open-PRM: one linear value on the last hidden state, as TRL's value heads are stored."""

    labels = 1

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.score = nn.Linear(self.config.hidden_size, 1, dtype=self.head_dtype)

    def load_weights(self, weights: Any) -> set[str]:
        loader = AutoWeightsLoader(self, ignore_unexpected_prefixes=["lm_head."])
        mapper = WeightsMapper(orig_to_new_prefix={"v_head.summary.": "score."})
        loaded: set[str] = loader.load_weights(weights, mapper=mapper)
        return loaded
