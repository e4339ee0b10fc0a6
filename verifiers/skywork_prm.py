"""Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B (SkyworkAI/skywork-o1-prm-inference).

Plain text: the question, then the solution line by line, each line encoded on its own and ended by a newline token, at
which a value head is read; its sigmoid is the score. A step here may be several lines: it has the score of its last
one. Blank lines stay where they are, as newline tokens. Step scores are averaged.
"""

from collections.abc import Sequence
from typing import Any

from infer.generate.readers import token_id
from infer.verifiers.prm import Family, architecture, encode_plain, remember


class SkyworkLayout:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._line = remember(encode_plain, tokenizer)
        self._newline = token_id(tokenizer, "\n")

    def __call__(self, question: str, steps: Sequence[str], finished: bool) -> tuple[list[int], list[int]]:
        tokenizer = self._tokenizer
        tokens = tokenizer.encode(f"{tokenizer.bos_token or ''}{question}\n", add_special_tokens=False)
        ends: list[int] = []
        for step in steps:
            lines, blank = step.split("\n"), []
            while len(lines) > 1 and not lines[-1].strip():
                blank.append(lines.pop())
            tokens += self._encode(lines)
            ends.append(len(tokens))
            tokens += self._encode(blank[:0:-1])  # its last newline ends nothing: the next line begins there
        return tokens, ends

    def _encode(self, lines: Sequence[str]) -> list[int]:
        return [token for line in lines for token in (*self._line(line), self._newline)]


SKYWORK_PRM = Family(
    name="skywork-prm",
    layout=lambda tokenizer, _: SkyworkLayout(tokenizer),
    recognizes=lambda name, config: architecture(config) == "Qwen2ForPrmModel" or "skywork-o1-open-prm" in name,
    aggregation="mean",
    classes={
        "vllm": "infer.verifiers.vllm_models:InferQwen2ValueHead",
        "transformers": "infer.verifiers.transformers_models:Qwen2ValueHead",
    },
)
