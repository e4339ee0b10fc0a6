"""The tokenizer: one token where the engine looks for one, and texts that survive encoding and decoding."""

import itertools

import pytest

from infer.nano import problems, tokenizer

words = tokenizer.build()


def test_every_solution_comes_back() -> None:
    for chain in itertools.islice(problems.training(5), 500):
        for text in (chain.prompt, chain.solution):
            ids = words(text)["input_ids"]
            assert words.unk_token_id not in ids
            assert words.decode(ids) == text


def test_printable_ascii_comes_back_and_nothing_else_is_known() -> None:
    text = "".join(map(chr, range(32, 127))) + "\n \n\n Answer: \\boxed{"
    assert words.decode(words(text)["input_ids"]) == text
    assert words("é")["input_ids"] == [words.unk_token_id]


def test_a_step_ends_at_one_token() -> None:
    assert len(words) == len(tokenizer.vocabulary()) == tokenizer.SIZE
    assert words("1+1=2\n\n2*2=4")["input_ids"].count(tokenizer.vocabulary()["\n\n"]) == 1
    assert len(words("Answer: \\boxed{")["input_ids"]) == 2


def test_the_chat_template_adds_the_roles_and_nothing_else() -> None:
    messages = [{"role": "user", "content": "1+1=?"}]
    prompt = words.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt == "<|user|>1+1=?<|assistant|>"
    ids = words.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == words(prompt)["input_ids"]
    assert len(ids) == 7
    with pytest.raises(Exception, match="roles user and assistant only"):
        words.apply_chat_template([{"role": "system", "content": "Be brief."}, *messages], tokenize=False)
