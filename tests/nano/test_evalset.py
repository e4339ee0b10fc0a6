"""The evaluation set of the nano problems."""

from collections import Counter

import pytest

from infer.evalsets import nano
from infer.nano import problems


def test_the_default_set_has_a_hundred_problems_of_each_level() -> None:
    loaded = list(nano.load())
    assert Counter(p.level for p in loaded) == dict.fromkeys("12345", 100)
    assert len({p.id for p in loaded}) == len({p.prompt for p in loaded}) == 500
    assert loaded[2].id == "nano-L3-0000"


def test_a_limit_covers_all_levels_evenly() -> None:
    assert Counter(p.level for p in nano.load(limit=50)) == dict.fromkeys("12345", 10)
    assert list(nano.load(limit=7)) == list(nano.load())[:7]


def test_a_larger_set_begins_with_the_same_problems() -> None:
    larger = list(nano.load(size=1500))
    assert larger[:500] == list(nano.load())
    assert len({p.prompt for p in larger}) == 1500


def test_one_level_alone() -> None:
    alone = list(nano.load(level=4))
    assert alone == [p for p in nano.load() if p.level == "4"]
    assert list(nano.load(limit=3, level=4)) == alone[:3]
    with pytest.raises(ValueError, match="no level 6"):
        nano.load(level=6)


def test_answers_are_the_chains() -> None:
    chain = next(problems.held_out(1))
    first = next(nano.load())
    assert (first.prompt, first.answer, first.level, first.source) == (chain.prompt, str(chain.answer), "1", "nano")
