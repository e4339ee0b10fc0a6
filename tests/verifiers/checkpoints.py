"""Tiny checkpoints with the public reward models' architectures, weight names, special tokens and chat templates.

Weights are random and large enough that scores differ from step to step. Nothing here comes from `verifiers/`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM, AutoModelForSequenceClassification

from infer.nano import checkpoint

CONTEXT = 4096
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.25,
    "tie_word_embeddings": False,
}
TEXT = [
    "Step 1: First we add 2 + 3 - 1 to get 4, so the total is 12 dollars.",
    "Question: How many eggs? Let x be the number. Then x = 7. Yes or No",
    "Is the solution correct? Yes. Is the solution correct? No. The answer is \\boxed{42}. ки ки ки + + - -",
    "Yes\nNo\nYes\nNo\nYes\nNo",
    "user\n\nassistant\n\nsystem\n\n<analyze>\nLet's analyze the Paragraph 1 step by step: </analyze>\n",
]
QWEN_CHAT = (
    "{% if messages[0]['role'] == 'system' %}{{ '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{% if not (message['role'] == 'system' and loop.first) %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_CHAT = (
    "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n<|eot_id|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ (message['content'] | trim) + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
R1_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% else %}{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
# the pieces into which GPT-4's, Llama 3's and Qwen's tokenizers split a text before they merge
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
PIECES = WORDS + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(special: list[str], chat_template: str, **names: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer, such as Qwen's and Llama 3's."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=520, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat_template, **names)


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
    return byte_level(special, QWEN_CHAT, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|endoftext|>")


def llama_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return byte_level(special, LLAMA_CHAT, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


def r1_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer like DeepSeek-R1-Distill's; GenPRM and ThinkPRM are trained from that model."""
    special = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>"]
    return byte_level(special, R1_CHAT, bos_token=special[0], eos_token=special[1])


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece as Llama 2 and Mistral use it: a space before the text, no splits, bytes for unknown characters."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    lines = [line for text in TEXT for line in text.split("\n")]  # in their vocabularies a newline is a byte
    trained.train_from_iterator(lines * 20, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"]]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in learned["merges"]]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _save(folder: Path, tokenizer: Any, config: Any, weights: dict[str, torch.Tensor], **changes: Any) -> Path:
    tokenizer.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), "dtype": "float32", **changes}))
    return folder


def causal(folder: Path, tokenizer: Any, config_class: Any, seed: int) -> Path:
    """A language model, like the published reward models that answer with a token."""
    torch.manual_seed(seed)
    config = config_class(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=tokenizer.eos_token_id, **SIZES)
    model = AutoModelForCausalLM.from_config(config)
    return _save(folder, tokenizer, config, model.state_dict(), architectures=[type(model).__name__])


def outcome(folder: Path) -> Path:
    torch.manual_seed(2)
    tokenizer = llama_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, **SIZES)
    model = AutoModelForSequenceClassification.from_config(config)
    names = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}, "num_labels": 1}
    return _save(folder, tokenizer, config, model.state_dict(), **names)


def qwen_prm(folder: Path, scale: float = 1.0) -> Path:
    """Qwen's reward model. `scale` multiplies the weights of the head's last layer."""
    torch.manual_seed(3)
    tokenizer = qwen_tokenizer()
    config = Qwen2Config(vocab_size=len(tokenizer), **SIZES)
    weights = dict(AutoModelForCausalLM.from_config(config).state_dict())  # the published one keeps its lm_head
    for name, rows in (("score.0", 64), ("score.2", 2)):
        weights[f"{name}.weight"] = torch.randn(rows, 64) * 0.2 * (scale if rows == 2 else 1)
        weights[f"{name}.bias"] = torch.randn(rows) * 0.1
    remote = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"}
    return _save(folder, tokenizer, config, weights, architectures=["Qwen2ForProcessRewardModel"], auto_map=remote)


def skywork_prm(folder: Path) -> Path:
    torch.manual_seed(4)
    tokenizer = qwen_tokenizer()
    config = Qwen2Config(vocab_size=len(tokenizer), **SIZES)
    weights = dict(AutoModelForCausalLM.from_config(config).state_dict())
    weights |= {"v_head.summary.weight": torch.randn(1, 64) * 0.2, "v_head.summary.bias": torch.randn(1)}
    return _save(folder, tokenizer, config, weights, architectures=["Qwen2ForPrmModel"])


def rlhflow_prm(folder: Path) -> Path:
    return causal(folder, llama_tokenizer(), LlamaConfig, 5)


def math_shepherd(folder: Path) -> Path:
    return causal(folder, mistral_tokenizer(), MistralConfig, 6)


# Checkpoints with faults.


def bert(folder: Path) -> Path:
    """Two labels, but a model that is not causal."""
    tokenizer = qwen_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1
    )
    model = AutoModelForSequenceClassification.from_config(config)
    return _save(folder, tokenizer, config, model.state_dict(), architectures=["BertForSequenceClassification"])


def upside_down(folder: Path) -> Path:
    """The first label is the good one."""
    tokenizer = qwen_tokenizer()
    config = Qwen2Config(vocab_size=len(tokenizer), **SIZES, id2label={0: "POSITIVE", 1: "NEGATIVE"})
    model = AutoModelForSequenceClassification.from_config(config)
    return _save(folder, tokenizer, config, model.state_dict(), architectures=["Qwen2ForSequenceClassification"])


def torn(folder: Path) -> Path:
    """A checkpoint with half of its weights file missing."""
    file = outcome(folder) / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return folder


def no_tokenizer(folder: Path) -> Path:
    """A checkpoint without a tokenizer; transformers then makes an empty one."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint("nano-prm-s") / name, folder / name)
    return folder


def one_turn(folder: Path) -> Path:
    tokenizer = llama_tokenizer()
    tokenizer.chat_template = "{{ '### Instruction:\n' + messages[-1]['content'] + '\n### Response:\n' }}"
    return causal(folder, tokenizer, LlamaConfig, 3)


def refusing(folder: Path) -> Path:
    tokenizer = llama_tokenizer()
    tokenizer.chat_template = (
        "{{ raise_exception('Only one message') if messages|length > 1 else messages[0].content }}"
    )
    return causal(folder, tokenizer, LlamaConfig, 3)
