"""The key's view of a body: what is one request, what are two."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire.errors import BadRequest, UnreadableBody
from llmproxy.wire.json_body import canonical, parse

names = st.text(min_size=1, max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(names, values, max_size=6)


def written(body: object) -> bytes:
    return canonical(parse(orjson.dumps(body)), ())


@given(bodies, st.randoms())
def test_the_order_of_top_level_names_does_not_matter(body: dict[str, object], random: object) -> None:
    shuffled = list(body.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis's own Random
    assert written(dict(shuffled)) == written(body)


@given(bodies, names, values)
def test_changing_adding_or_removing_a_field_always_matters(body: dict[str, object], name: str, value: object) -> None:
    without = {key: member for key, member in body.items() if key != name}
    other = {**without, name: value}
    assert written(other) != written(without)
    if name in body and orjson.dumps(body[name]) != orjson.dumps(value):
        same_number = (
            isinstance(value, int | float)
            and isinstance(body[name], int | float)
            and not isinstance(value, bool)
            and not isinstance(body[name], bool)
            and value == body[name]
        )
        assert (written(other) == written(body)) == same_number


def test_nested_order_matters() -> None:
    assert written({"tools": {"a": 1, "b": 2}}) != written({"tools": {"b": 2, "a": 1}})


@pytest.mark.parametrize("text", [b"1", b"1.0", b"1e0", b"10e-1"])
def test_top_level_numbers_are_compared_by_value(text: bytes) -> None:
    assert canonical(parse(b'{"n":' + text + b"}"), ()) == b'{"n":1}'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"12345678901234567890123", b"12345678901234567890124"),
        (b"18446744073709551616", b"18446744073709551617"),
        (b"1.0", b"1"),
        (b"1.0", b"1e0"),
        (b"0.12345678901234567", b"0.12345678901234568"),
    ],
)
def test_nested_numbers_keep_their_lexical_form(one: bytes, other: bytes) -> None:
    assert canonical(parse(b'{"a":{"n":' + one + b"}}"), ()) != canonical(parse(b'{"a":{"n":' + other + b"}}"), ())
    assert one in canonical(parse(b'{"a":{"n":' + one + b"}}"), ())


@given(
    st.sampled_from([b"1e5", b"-1.5E+30", b"0.1234567890123456789", b"-12345678901234567890123"]),
    st.sampled_from([b"", b" ", b"\n\t ", b"\r\n"]),
    st.sampled_from([b"[[%b%b]]", b"[[1,%b%b]]", b'{"n":%b%b}']),
    st.integers(0, 40),
)
def test_a_number_is_found_among_identifiers(number: bytes, blank: bytes, place: bytes, count: int) -> None:
    identifiers = b'"' + b"3f4e7a1e5-00000000000000000000 " * count + b'"'
    body = b'{"a":' + identifiers + b',"b":' + place % (blank, number) + b"}"
    assert number in canonical(parse(body), ())


def test_a_large_top_level_integer_keeps_its_digits() -> None:
    assert canonical(parse(b'{"seed":12345678901234567890123}'), ()) == b'{"seed":12345678901234567890123}'


def test_of_duplicate_names_the_last_one_counts() -> None:
    assert canonical(parse(b'{"a":1,"a":2}'), ()) == b'{"a":2}'


def test_escapes_are_the_characters_they_stand_for() -> None:
    assert written({"a": "é"}) == canonical(parse(b'{"a":"\\u00e9"}'), ())


def test_a_byte_order_mark_is_forgiven() -> None:
    assert parse(b'\xef\xbb\xbf{"a":1}') == {"a": 1}


def test_excused_fields_are_left_out() -> None:
    assert canonical({"a": 1, "b": 2}, {"a"}) == b'{"b":2}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"true",
        b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"a":' + b"[" * 900 + b"1e5" + b"]" * 900 + b"}" + b"}",
    ],
)
def test_what_is_no_proper_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(body)


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes_give_an_object_or_a_refusal(body: bytes) -> None:
    try:
        parsed = parse(body)
    except BadRequest:
        return
    assert isinstance(parsed, dict)


@pytest.mark.parametrize("depth", [252, 253, 254, 300])
def test_what_cannot_be_written_again_is_refused(depth: int) -> None:
    body = parse(b'{"x":' + b"[" * depth + b"]" * depth + b"}")
    with pytest.raises(BadRequest, match="nested too deeply"):
        canonical(body, ())


def test_what_can_be_written_can_be_repeated_two_levels_deeper() -> None:
    body = parse(b'{"x":' + b"[" * 251 + b"]" * 251 + b"}")
    canonical(body, ())
    orjson.dumps({"response": {"body": body}})


@pytest.mark.parametrize(
    "body",
    [
        b'{"s":"x","a":[' + b"0," * 10_000_001 + b"0]}",
        # counted before it is parsed, as what is no JSON is too
        b"{" + b":" * 2_500_001 + b" " * 8_000_000,
        b'{"s":"\\"","a":[' + b"[]," * 3_400_000 + b"[]]}",
    ],
    ids=["numbers", "members", "arrays"],
)
def test_too_many_values_are_refused_before_they_are_made(body: bytes) -> None:
    with pytest.raises(UnreadableBody, match="too many values"):
        parse(body)


@pytest.mark.parametrize("text", [b"x", b",", b'\\"', b"[", b":"], ids=["x", "commas", "quotes", "brackets", "colons"])
def test_a_long_text_is_one_value(text: bytes) -> None:
    body = b'{"a":"' + text * 10_000_001 + b'"}'
    assert len(parse(body)["a"]) == 10_000_001
