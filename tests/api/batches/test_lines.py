"""One line of an input file."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.api.batch_input import ENDPOINTS, read_line
from llmproxy.wire.errors import BadRequest
from tests.api.batches.made import BODIES, CHAT, Json, request

MOST = 10_000

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


def refusal(line: Json | bytes, endpoint: str = CHAT) -> tuple[str | None, str, str | None]:
    """Code, message and parameter."""
    written = line if isinstance(line, bytes) else json.dumps(line).encode()
    with pytest.raises(BadRequest) as caught:
        read_line(written, endpoint, MOST)
    return caught.value.error_code, caught.value.message, caught.value.param


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_good_line_of_every_endpoint(endpoint: str) -> None:
    body = {"model": "m", **BODIES[endpoint]}
    line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
    found = read_line(json.dumps(line).encode(), endpoint, MOST)
    assert (found.custom_id, found.model, orjson.loads(found.body)) == ("a", "m", body)


@settings(max_examples=100)
@given(texts, st.dictionaries(texts, values, max_size=4))
def test_the_body_means_the_same_to_the_last_digit(custom_id: str, more: dict[str, Any]) -> None:
    line = request(custom_id)
    line["body"] = {**more, **line["body"], "stream": False}
    found = read_line(json.dumps(line).encode(), CHAT, 10**6)
    assert found.custom_id == custom_id
    assert _lexical(found.body) == _lexical(json.dumps(line["body"]))


def _lexical(text: str | bytes) -> Any:
    return _normal(json.loads(text, parse_float=str, parse_int=str))


def _normal(value: Any) -> Any:
    """Numbers by their value: they may be written in another form, but not lose a digit."""
    if isinstance(value, dict):
        return {name: _normal(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_normal(member) for member in value]
    try:
        return int(value)
    except (TypeError, ValueError):
        pass
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def test_numbers_that_no_float_holds_keep_their_digits() -> None:
    line = json.dumps(request("a")).replace('"messages"', '"seed": 12345678901234567890123, "messages"')
    assert b'"seed":12345678901234567890123' in read_line(line.encode(), CHAT, MOST).body


@settings(max_examples=100)
@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_whatever_stands_in_a_line_it_is_read_or_refused(line: bytes) -> None:
    code, message, _ = refusal(line)
    assert code
    assert message


@pytest.mark.parametrize("name", ["custom_id", "method", "url", "body"])
@pytest.mark.parametrize("how", ["absent", "null"])
def test_a_member_that_is_missing(name: str, how: str) -> None:
    line = request("a")
    line[name] = None
    if how == "absent":
        del line[name]
    assert refusal(line) == ("missing_required_parameter", f"Missing required parameter: '{name}'.", name)


@pytest.mark.parametrize("line", [b"{", b"hello", b"[1]", b'"text"', b'{"custom_id": "\xff"}', b'{"a": NaN}'])
def test_a_line_that_is_no_json_object(line: bytes) -> None:
    assert refusal(line) == ("invalid_json_line", "This line is not parseable as valid JSON.", None)


def test_a_body_nested_too_deeply() -> None:
    line = json.dumps(request("a")).replace('"hello"', "[" * 500 + "]" * 500)
    assert refusal(line.encode())[0] == "invalid_json_line"


def test_another_url_than_the_endpoint() -> None:
    message = "The URL provided for this request does not match the batch endpoint."
    assert refusal(request("a"), "/v1/embeddings") == ("invalid_url", message, "url")
    assert refusal(request("a") | {"url": "/chat/completions"})[0] == "invalid_url"


@pytest.mark.parametrize(
    ("member", "value", "code", "param"),
    [
        ("custom_id", 7, "invalid_type", "custom_id"),
        ("custom_id", "x" * 513, "string_above_max_length", "custom_id"),
        ("custom_id", "nul\0", "invalid_value", "custom_id"),
        ("method", "GET", "invalid_method", "method"),
        ("method", 1, "invalid_type", "method"),
        ("url", ["x"], "invalid_type", "url"),
        ("body", [], "invalid_type", "body"),
    ],
)
def test_a_member_that_is_not_right(member: str, value: object, code: str, param: str) -> None:
    assert refusal(request("a") | {member: value})[::2] == (code, param)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_each_endpoint_cannot_do_without(endpoint: str) -> None:
    line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": "m"}}
    needed = ENDPOINTS[endpoint]
    message = f"{needed.capitalize()} parameter is required."
    assert refusal(line, endpoint) == ("invalid_request", message, f"body.{needed}")


@pytest.mark.parametrize("model", [None, ""])
def test_no_model(model: str | None) -> None:
    line = request("a")
    line["body"]["model"] = model
    assert refusal(line) == ("invalid_request", "Model parameter is required.", "body.model")


def test_a_model_that_can_be_none() -> None:
    assert refusal(request("a", model="nul\0"))[::2] == ("model_not_found", "body.model")
    line = request("a")
    line["body"]["model"] = 7
    assert refusal(line)[::2] == ("invalid_type", "body.model")


@pytest.mark.parametrize("stream", [True, 1, "yes"])
def test_a_stream(stream: object) -> None:
    assert refusal(request("a", stream=stream))[::2] == ("streaming_unsupported", "body.stream")


def test_a_line_that_is_too_long() -> None:
    assert refusal(request("a", "x" * MOST))[0] == "request_too_large"


@pytest.mark.parametrize(
    ("wanted", "inputs"), [("one", 1), (["one", "two"], 2), ([1, 2, 3], 1), ([[1], [2]], 2), ([], 0)]
)
def test_inputs_to_embed_are_counted(wanted: object, inputs: int) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": wanted}}
    assert read_line(json.dumps(line).encode(), "/v1/embeddings", MOST).inputs == inputs
