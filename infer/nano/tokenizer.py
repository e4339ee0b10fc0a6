"""The family's tokenizer: 128 entries, which are characters and the three strings that structure a solution."""

import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, END, UNKNOWN = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<|unknown|>"
SPECIAL = [PAD, USER, ASSISTANT, END, UNKNOWN]
WORDS = ["\n\n", "Answer: ", "\\boxed{"]  # one token each; `\n\n` so that a step ends at exactly one token
CHARACTERS = ["\n", " ", *string.digits, *string.ascii_letters, *string.punctuation]
SIZE = 128

CHAT_TEMPLATE = """\
{%- for message in messages %}
{%- if message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}
{%- elif message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|end|>' }}
{%- else %}{{ raise_exception('nano models know the roles user and assistant only') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""


def vocabulary() -> dict[str, int]:
    """Maps tokens to ids, 128 entries. Unused ids have reserved tokens, so that every id decodes to some text."""
    tokens = [*SPECIAL, *WORDS, *CHARACTERS]
    tokens += [f"<|reserved-{i}|>" for i in range(SIZE - len(tokens))]
    return {token: i for i, token in enumerate(tokens)}


def build() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template; no token is added before or after a text."""
    tokenizer = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n|Answer: |\\boxed\{|[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
