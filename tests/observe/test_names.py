import pytest

from llmproxy.observe.names import Names


def test_the_first_names_get_through_and_stay() -> None:
    names = Names(2)
    assert [names.label(name) for name in ("a", "b", "c", "a", "d", "b")] == ["a", "b", "other", "a", "other", "b"]


@pytest.mark.parametrize("junk", ["x" * 101, "a\nb", "a\x1b[31m", "\ud800", "a\x00"])
def test_junk_is_other_and_takes_no_place(junk: str) -> None:
    names = Names(1)
    assert names.label(junk) == "other"
    assert names.label("real") == "real"


def test_an_unproven_name_takes_no_place_but_a_known_one_is_shown() -> None:
    names = Names(1)
    assert names.label("typo", proven=False) == "other"
    assert names.label("real") == "real"
    assert names.label("real", proven=False) == "real"


def test_no_name_is_none() -> None:
    assert Names(0).label("") == "none"
