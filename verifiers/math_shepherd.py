"""peiyi9979/math-shepherd-mistral-7b-prm (Wang et al., 2312.08935, and the model card).

Plain text, `question Step 1: ... ки\\nStep 2: ... ки`: a language model whose probability of `+` over that of `-` is
read at each tag `ки`. The text is tokenized in one piece, as SentencePiece needs, and tags are found by their place in
it: a step that itself contains `ки` is not cut. The lowest step score is the solution's, as in the paper.
"""

from collections.abc import Sequence
from typing import Any

from infer.errors import UserError
from infer.generate.readers import token_id
from infer.verifiers.prm import Family, numbered

TAG = "ки"


class MathShepherdLayout:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tag = token_id(tokenizer, TAG)

    def __call__(self, question: str, steps: Sequence[str], finished: bool) -> tuple[list[int], list[int]]:
        text, places = question, []
        for number, step in enumerate(steps, 1):
            text += f"{' ' if number == 1 else chr(10)}{numbered(step, number)} {TAG}"
            places.append(len(text))
        encoded = self._tokenizer(text, return_offsets_mapping=True, split_special_tokens=True)
        tokens: list[int] = encoded["input_ids"]
        # the length of the prefix that ends where a character does; empty tokens such as the first have no place
        length = {end: i for i, (start, end) in enumerate(encoded["offset_mapping"], 1) if end > start}
        ends = [length.get(place, 0) for place in places]
        if any(tokens[end - 1] != self._tag for end in ends):
            raise UserError(
                f"this tokenizer merges the step tag {TAG!r} with the text before it: it is another model's"
            )
        return tokens, ends


MATH_SHEPHERD = Family(
    name="math-shepherd",
    layout=lambda tokenizer, _: MathShepherdLayout(tokenizer),
    recognizes=lambda name, _: "math-shepherd" in name and "prm" in name,  # there are policies of that name too
    aggregation="min",
    pair=("+", "-"),
)
