"""Labels: their bounds, and that one is found in the JSON of all exactly where it is one of them."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.jobs.stored_model import dump_labels, label_json, parse_metadata
from llmproxy.wire.errors import BadRequest

#: few and awkward letters, so that texts meet
texts = st.text('a,:"\\{}\n\0é', max_size=4)
labels = st.dictionaries(texts, texts, max_size=3)


@settings(max_examples=300)
@given(labels, texts, texts)
def test_a_label_is_found_where_it_is_one_of_them_and_nowhere_else(
    all_of_them: dict[str, str], name: str, value: str
) -> None:
    assert (label_json(name, value) in dump_labels(all_of_them)) == (all_of_them.get(name) == value)


@settings(max_examples=100)
@given(labels)
def test_they_are_kept_as_json_and_each_is_found(all_of_them: dict[str, str]) -> None:
    text = dump_labels(all_of_them)
    assert orjson.loads(text) == all_of_them
    assert "\0" not in text
    assert all(label_json(name, value) in text for name, value in all_of_them.items())


@pytest.mark.parametrize(
    "allowed", [None, {}, {"k" * 64: "v" * 512}, {str(number): "" for number in range(16)}, {"": "🙂" * 512}]
)
def test_what_is_within_the_bounds_is_taken(allowed: Any) -> None:
    assert parse_metadata(allowed) == (allowed or {})


@pytest.mark.parametrize(
    ("metadata", "code", "param"),
    [
        ("text", "invalid_type", "metadata"),
        (["a"], "invalid_type", "metadata"),
        ({"a": 1}, "invalid_type", "metadata.a"),
        ({"a": None}, "invalid_type", "metadata.a"),
        ({"k" * 65: "v"}, "string_above_max_length", "metadata"),
        ({"k": "v" * 513}, "string_above_max_length", "metadata.k"),
        ({str(number): "" for number in range(17)}, "object_above_max_properties", "metadata"),
    ],
)
def test_what_is_beyond_is_refused_by_name(metadata: Any, code: str, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_metadata(metadata)
    assert (caught.value.param, caught.value.error_code) == (param, code)
