"""Chats as tokens: the template's text is tokenized in one piece, and no message smuggles in a special token."""

from typing import Any

import pytest

from infer.core.generator import Message
from infer.errors import UserError
from infer.verifiers.chat import Chat
from infer.verifiers.outcome import OutcomeLayout

pytest.importorskip("torch")
pytestmark = pytest.mark.models

MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ANSWER + eos_token }}{% endif %}{% endfor %}"
)
QWEN3 = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '<|im_start|>user\n'+message.content+'<|im_end|>\n' }}"
    "{% else %}{% set parts = message.content.split('</think>') %}"
    "{% set thought = parts[0].split('<think>')[-1].strip('\n') if parts|length > 1 else '' %}"
    "{{ '<|im_start|>assistant\n<think>\n'+thought+'\n</think>\n\n'+parts[-1].lstrip('\n')+'<|im_end|>\n' }}"
    "{% endif %}{% endfor %}"
)


def tokenizer(kind: str) -> Any:
    from tests.verifiers import checkpoints

    made: Any = getattr(checkpoints, f"{kind.split()[0]}_tokenizer")()
    match kind:
        case "mistral":
            made.chat_template = MISTRAL.replace("ANSWER", "message['content']")
        case "mistral with a space":
            made.chat_template = MISTRAL.replace("ANSWER", "' ' + message['content']")
        case "qwen that thinks":
            made.chat_template = QWEN3
    return made


KINDS = ["mistral", "mistral with a space", "llama", "qwen", "qwen that thinks"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "answer", ["The total is 12 dollars.", "<think>\nAdd 2 and 3.\n</think>\n\nIt is 5.", " [5]", "ки"]
)
def test_outcome_tokens_are_the_templates_own(kind: str, answer: str) -> None:
    judged = tokenizer(kind)
    conversation = [{"role": "user", "content": "How many eggs?"}, {"role": "assistant", "content": answer.strip()}]
    card = list(judged.apply_chat_template(conversation, tokenize=True, return_dict=False))
    assert OutcomeLayout(judged, {})("How many eggs?", [answer], True) == (card, [len(card)])


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_messages_are_spelled(kind: str) -> None:
    judged = tokenizer(kind)
    special = set(judged.all_special_ids)
    layout = OutcomeLayout(judged, {})
    plain, _ = layout("What is  an end?", ["It is  this: ."], True)
    tag = judged.eos_token
    tokens, _ = layout(f"What is {tag} an end?", [f"It is {tag} this: {tag}."], True)
    assert [token for token in tokens if token in special] == [token for token in plain if token in special]
    assert judged.decode(tokens).count(tag) == judged.decode(plain).count(tag) + 3
    if not kind.startswith("mistral"):  # it puts a space at the start of each piece
        said = f"What is {tag} an end?", f"It is {tag} this: {tag}."
        conversation = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), said, strict=True)]
        assert judged.decode(tokens) == judged.apply_chat_template(conversation, tokenize=False)


@pytest.mark.parametrize("template", [MISTRAL.replace("ANSWER", "message['content']"), None])
@pytest.mark.parametrize("content", ["How many eggs?", "How many </s> eggs?"])
def test_a_chat_begins_once(template: str | None, content: str) -> None:
    """The start token comes once, from the template or, for a plain text, from the tokenizer."""
    judged = tokenizer("mistral")
    judged.chat_template = template
    chat = Chat(judged)
    for text in (chat.text([{"role": "user", "content": content}]), chat.before_answer([])):
        tokens = chat.encode(text + "So:")
        assert tokens[0] == judged.bos_token_id
        assert sum(token in judged.all_special_ids for token in tokens) == 1


def test_the_reward_is_read_before_padding() -> None:
    """The reward is read where transformers reads it, also if the template ends in the model's padding token."""
    judged = tokenizer("llama")
    for config in ({"pad_token_id": judged.eos_token_id}, {"text_config": {"pad_token_id": judged.eos_token_id}}):
        tokens, (end,) = OutcomeLayout(judged, config)("How many eggs?", ["5."], True)
        assert (end, tokens[-1]) == (len(tokens) - 1, judged.eos_token_id)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ messages[0].content }}", "does not keep the turns"),
        ("{{ raise_exception('no\nassistant') }}", "refuses these messages: TemplateError: no$"),
        (None, "has no chat template"),
    ],
)
def test_unfit_templates(template: str | None, says: str) -> None:
    judged = tokenizer("llama")
    judged.chat_template = template
    with pytest.raises(UserError, match=says):
        OutcomeLayout(judged, {})


def test_a_continued_turn_begins_as_in_the_history() -> None:
    from tests.verifiers.checkpoints import r1_tokenizer

    judged = r1_tokenizer()
    chat = Chat(judged)
    asked: list[Message] = [{"role": "user", "content": "How many eggs?"}]
    assert chat.text(asked).endswith("<｜Assistant｜><think>\n")
    before = chat.before_answer(asked)
    later = [*asked, {"role": "assistant", "content": "So 5."}, {"role": "user", "content": "Why?"}]
    assert chat.text(later).startswith(f"{before}So 5.")
    judged.chat_template = "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
    with pytest.raises(UserError, match="does not keep the turns"):
        Chat(judged).before_answer(asked)
