"""Ids of stored chat completions: the place in a list is in them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.api.chat import ChatId

#: some three hundred years, at a precision that a float does not lose
times = st.integers(0, 9_000_000_000_000_000).map(lambda micros: micros / 1e6)


@settings(max_examples=100)
@given(times)
def test_an_id_is_read_as_it_was_made(time: float) -> None:
    made = ChatId.new(time)
    assert made.time == time
    assert ChatId.read(made.text) == made


@settings(max_examples=100)
@given(times, times)
def test_ids_are_in_the_order_of_their_times(one: float, other: float) -> None:
    assert (ChatId.new(one) < ChatId.new(other)) == (one < other) or one == other


def test_no_two_are_equal() -> None:
    assert ChatId.new(1.0) != ChatId.new(1.0)


@pytest.mark.parametrize("text", ["", "chatcmpl-1", "resp_" + "0" * 32, "chatcmpl-" + "0" * 33, "chatcmpl-" + "G" * 32])
def test_what_is_no_id_is_none(text: str) -> None:
    assert ChatId.read(text) is None
