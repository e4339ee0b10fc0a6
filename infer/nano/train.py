"""Train the nano family: `python -m infer.nano.train all|xs|s|m|l|prm-s [--out DIR] [--seed N]`.

Each model has its own random streams, so `all` gives the same models as one command for each. The reward model learns
from samples of the generators in DIR. Training uses one thread: more gain little at these sizes, and change the order
of sums. On one core of a 2-core AMD EPYC (AVX-512) xs takes 2 minutes, s 3, m 5, l 13, prm-s 16.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from infer.nano import CHECKPOINTS, generator, prm, tokenizer


def save(model: PreTrainedModel, folder: Path) -> None:
    """Writes an ordinary Hugging Face checkpoint with the tokenizer beside it.

    Weights are in float32: the family still takes only 20 MB, and results of vLLM and transformers agree to rounding.
    """
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    words = tokenizer.build()
    words.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    # this class has the name in every version; transformers 5 writes another one, which 4 doesn't know
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    if model.can_generate():
        GenerationConfig(eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id).save_pretrained(folder)


def train(name: str, out: Path, seed: int = 0) -> None:
    """Trains one model of the family and saves it as `out/name`. Raises FileNotFoundError without the generators."""
    words = tokenizer.build()
    model: PreTrainedModel
    if name in generator.SIZES:
        model = generator.train(generator.SIZES[name], words, name, seed)
    else:
        missing = [size for size in generator.SIZES if not (out / size / "config.json").is_file()]
        if missing:
            raise FileNotFoundError(f"{name} learns from the generators; train first, into {out}: {', '.join(missing)}")
        generators = {size: Qwen3ForCausalLM.from_pretrained(out / size) for size in generator.SIZES}
        model = prm.train(prm.RECIPES[name], generators, words, name, seed)
    save(model, out / name)


def main(argv: list[str] | None = None) -> None:
    """Trains the models that the command line names."""
    names = [*generator.SIZES, *prm.RECIPES]
    parser = argparse.ArgumentParser(prog="python -m infer.nano.train", description="Train the nano family.")
    parser.add_argument("name", choices=["all", *names], help="one model, or all of them in order")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder of checkpoints (default: the package)")
    parser.add_argument("--seed", type=int, default=0, help="another family (default: 0, the one that ships)")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    disable_progress_bar()
    for name in names if options.name == "all" else [options.name]:
        started = time.perf_counter()
        try:
            train(name, options.out, options.seed)
        except FileNotFoundError as error:
            parser.error(str(error))
        size = (options.out / name / "model.safetensors").stat().st_size
        print(f"{name}: {size / 1e6:.2f} MB, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
