"""The key: different parts, different keys."""

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.cache.key import key_of

parts = st.tuples(st.text(), st.text(), st.text(), st.text(), st.binary())


@given(parts, parts)
def test_equal_parts_and_only_they_give_equal_keys(
    one: tuple[str, str, str, str, bytes], other: tuple[str, str, str, str, bytes]
) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)
    assert len(key_of(*one)) == 32


def test_parts_do_not_run_into_each_other() -> None:
    assert key_of("a", "bc", "", "", b"") != key_of("ab", "c", "", "", b"")
    assert key_of("", "", "x", "", b"") != key_of("", "", "", "x", b"")
