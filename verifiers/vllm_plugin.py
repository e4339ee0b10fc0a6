"""Makes the classes of `vllm_models.py` known to vLLM."""


def register() -> None:
    """By name only. Every vLLM process runs this at its start (entry point `vllm.general_plugins`)."""
    from vllm import ModelRegistry

    for name in ("InferQwen2ProcessReward", "InferQwen2ValueHead"):
        if name not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(name, f"infer.verifiers.vllm_models:{name}")
