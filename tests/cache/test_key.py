"""The key: different parts, different keys."""

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.cache.key import key_of, own_form

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


def test_a_key_outlives_a_restart_and_an_update() -> None:
    key = key_of("chat", "identity", "scope", "namespace", b"{}")
    assert key.hex() == "1eb6562f200333ce3b1ba8383309643a5a91d42cc3970c30ed1d1fa772c3cf51"
    assert own_form(key, True).hex() == "12be82984fc20ac3989be39bf48b4d82718dc10ec139716168bd703c5f7ad995"
    assert own_form(key, False).hex() == "f070fdb1b5bdc41777f2516493630a1ee69f0435b41ee2944ffb573ed3cbf0e5"
