"""What the vLLM generator makes of vLLM's output, where vLLM's own text won't do."""

from pathlib import Path
from typing import Any

import pytest

from infer.generate.base import Request, Sampling
from infer.generate.vllm import VLLMGenerator

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 over a byte-level vocabulary with the tokens "\\n\\n", "\\n\\n\\n" and ".\\n\\n#"."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    newline = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("\n")[0][0]
    words = [*alphabet, newline * 2, newline * 3, f".{newline * 2}#"]
    merges = [(newline, newline), (newline, newline * 2)]
    tokenizer = Tokenizer(BPE({word: i for i, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("bytes")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>").save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(words) + 1,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=len(words),
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(byte_model: Path) -> Any:
    pytest.importorskip("vllm")
    from infer.engine import start_engine

    return start_engine(byte_model, "generate", dtype="float32", memory_fraction=0.1)


async def test_texts_of_steps_are_whole_tokens_and_add_up(engine: Any) -> None:
    """Over random bytes, split characters included: the texts of the pieces add up to the text of all tokens, and a
    step ends with the token that completes the delimiter, whatever stands before or behind it in that token."""
    generator = VLLMGenerator(engine)
    decode = engine.tokenizer.decode
    sampling = Sampling(temperature=1.0, max_tokens=400)
    ends: set[str] = set()
    for seed in range(40):
        prompt = engine.tokenizer.encode("é")
        produced: list[int] = []
        text = ""
        while len(produced) < 300:
            request = Request(prompt + produced, sampling, 7, seed=1000 * seed + len(produced), delimiter="\n\n")
            (piece,) = await generator.generate(request)
            assert piece.tokens
            last = decode(piece.tokens)
            if piece.finish == "step":
                assert "\n\n" in last
                assert "\n\n" not in decode(piece.tokens[:-1])
                ends.add(decode(piece.tokens[-1:]))
            produced += piece.tokens
            text += piece.text
            if piece.finish == "end":
                break
        whole = decode(produced, skip_special_tokens=True).rstrip("\ufffd")
        assert text.rstrip("\ufffd") == whole
    assert {"\n\n", "\n\n\n", ".\n\n#"} <= ends
