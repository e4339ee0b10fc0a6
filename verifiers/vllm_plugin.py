"""Makes the classes of `vllm_models.py` known to vLLM."""

from infer.generate.engine import quiet_environment


def register() -> None:
    """By name only. Every vLLM process runs this at its start (entry point `vllm.general_plugins`)."""
    from vllm import ModelRegistry

    for name in ("InferQwen2ProcessReward", "InferQwen2ValueHead"):
        if name not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(name, f"infer.verifiers.vllm_models:{name}")


def register_loaded(name: str) -> None:
    """The class itself, in this process: vLLM would start another one, for many seconds, only to look at it."""
    quiet_environment()
    from vllm import ModelRegistry

    from infer.verifiers import vllm_models

    ModelRegistry.register_model(name, getattr(vllm_models, name))
