"""Foreign text as it is shown."""

import pytest

from infer.core.formats import clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x1b[0m", "ab"),
        ("a\x9b2Jb", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x9d0;title\x9cb", "ab"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x90never ended", "anever ended"),
        ("a\x90begun\x9dtitle\x9cb", "abegunb"),
        ("tab\tand\nline\r", "tab\tand\nline"),
    ],
)
def test_a_terminal_gets_nothing_to_obey(text: str, shown: str) -> None:
    assert clean(text) == shown


@pytest.mark.parametrize("begun", ["\x90", "\x9d", "\x1b]", "\x1b[", "\x9b0"])
def test_a_million_sequences_that_never_end_are_cleaned_at_once(begun: str) -> None:
    """Each on its own: where the rest of the text is read for each, this takes hours."""
    assert not set(clean(begun * 10**6)) & {"\x1b", *map(chr, range(0x80, 0xA0))}
