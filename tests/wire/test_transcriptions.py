"""Transcriptions: the form as members, transcripts in every format, both kinds of streams."""

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire.documents import Malformed
from llmproxy.wire.errors import BadRequest, UnreadableBody, UpstreamBroke
from llmproxy.wire.exchange import Usage
from llmproxy.wire.formats.transcriptions import TRANSCRIPTIONS
from llmproxy.wire.framing import sse_data, sse_frame
from llmproxy.wire.vocabulary import Reason

BOUNDARY = b"----b"
KIND = b"multipart/form-data; boundary=" + BOUNDARY


def form(*parts: tuple[bytes, bytes]) -> bytes:
    pieces = [b"--%b\r\ncontent-disposition: form-data; %b\r\n\r\n%b\r\n" % (BOUNDARY, *part) for part in parts]
    return b"".join([*pieces, b"--%b--\r\n" % BOUNDARY])


def field(name: str, value: str) -> tuple[bytes, bytes]:
    return f'name="{name}"'.encode(), value.encode()


def recording(data: bytes, name: bytes = b"a.wav") -> tuple[bytes, bytes]:
    return b'name="file"; filename="%b"\r\ncontent-type: audio/wav' % name, data


def members(*parts: tuple[bytes, bytes]) -> dict[str, Any]:
    return TRANSCRIPTIONS.read_request(form(*parts), KIND)


@settings(max_examples=50)
@given(data=st.binary(max_size=3000))
def test_a_recording_is_its_digest(data: bytes) -> None:
    assert members(recording(data), field("model", "m")) == {
        "model": "m",
        "file": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)},
        "file.name": "a.wav",
        "file.type": "audio/wav",
    }


def test_a_large_recording_is_read_in_pieces() -> None:
    data = bytes(range(256)) * 10_000
    assert members(recording(data))["file"] == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_fields_have_their_types() -> None:
    found = members(
        field("stream", "True"),
        field("temperature", "0"),
        field("include[]", "logprobs"),
        field("timestamp_granularities[]", "word"),
        field("timestamp_granularities[]", "segment"),
        field("language", "de"),
    )
    assert found == {
        "stream": True,
        "temperature": 0.0,
        "include[]": "logprobs",
        "timestamp_granularities[]": ["word", "segment"],
        "language": "de",
    }
    assert isinstance(found["temperature"], float)


@pytest.mark.parametrize("text", ["warm", "nan", "inf", "-inf", ""])
def test_a_temperature_that_is_no_number_stays_a_text(text: str) -> None:
    assert members(field("temperature", text)) == {"temperature": text}


@pytest.mark.parametrize("content_type", [b"", b"application/json", b"multipart/mixed; boundary=----b"])
def test_what_is_no_form_is_the_upstreams_to_judge(content_type: bytes) -> None:
    with pytest.raises(UnreadableBody):
        TRANSCRIPTIONS.read_request(form(field("model", "m")), content_type)


def test_the_content_type_has_no_case() -> None:
    content_type = b"Multipart/Form-Data ; boundary=" + BOUNDARY
    assert TRANSCRIPTIONS.read_request(form(field("model", "m")), content_type) == {"model": "m"}


@pytest.mark.parametrize("name", ["model", "stream", "temperature"])
def test_what_the_proxy_reads_is_given_once(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        members(field(name, "true"), field(name, "true"))
    assert caught.value.param == name


@pytest.mark.parametrize("name", ["file.name", "file.type"])
def test_no_field_can_pass_for_what_the_key_leaves_out(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        members(field(name, "x"))
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("content_type", "body", "document"),
    [
        (b"application/json", b'{"text": "a"}', {"text": "a"}),
        (b"text/plain", b"a\n", {"text": "a\n"}),
        (b"", b"a", {"text": "a"}),
        (b"text/html; charset=utf-8", b"a", {"text": "a"}),
        (b"text/plain", b'{"error": "no"}', {"error": "no"}),
        (b"text/plain", b"\xff", {"text": "\ufffd"}),
        (b"text/plain", b"[1]", {"text": "[1]"}),
        (b"application/json; charset=utf-8", b"a", None),
        (b"Application/Problem+JSON", b"a", None),
        (b"text/plain", b"", None),
        (b"text/plain", b" \n", None),
        (b"text/html", b"\n<!DOCTYPE html>", None),
        (b"text/html", b"<HTML>", None),
    ],
)
def test_answers(content_type: bytes, body: bytes, document: Any) -> None:
    assert TRANSCRIPTIONS.read_answer(body, content_type) == document


@pytest.mark.parametrize(
    ("document", "flaw"),
    [
        ({"text": "a"}, None),
        ({"text": ""}, None),
        ({"text": None}, Reason.MALFORMED),
        ({}, Reason.MALFORMED),
        ({"text": "a", "error": {"message": "no"}}, Reason.ERROR),
        ({"text": "a", "type": "error"}, Reason.ERROR),
        ({"text": "a", "object": "error"}, Reason.ERROR),
    ],
)
def test_flaws(document: dict[str, Any], flaw: Reason | None) -> None:
    assert TRANSCRIPTIONS.flaw(document) is flaw


OPENAI = [
    sse_frame(b'{"type":"transcript.text.delta","delta":"a"}'),
    sse_frame(b'{"type":"transcript.text.delta","delta":" b"}'),
    sse_frame(b'{"type":"transcript.text.done","text":"a b","usage":{"input_tokens":3,"output_tokens":2}}'),
]
VLLM = [
    sse_frame(b'{"object":"transcription.chunk","choices":[{"delta":{"content":"a"}}]}'),
    sse_frame(b'{"object":"transcription.chunk","choices":[{"delta":{"content":" b"},"finish_reason":"stop"}]}'),
    sse_frame(b'{"object":"transcription.chunk","choices":[],"usage":{"input_tokens":3,"output_tokens":2}}'),
    sse_frame(b"[DONE]"),
]


@pytest.mark.parametrize("frames", [OPENAI, VLLM], ids=["OpenAI", "vLLM"])
def test_a_stream_ends_once_and_has_one_text(frames: list[bytes]) -> None:
    assert [TRANSCRIPTIONS.terminal(frame) for frame in frames] == [False] * (len(frames) - 1) + [True]
    document = TRANSCRIPTIONS.assemble(frames)
    assert document["text"] == "a b"
    assert TRANSCRIPTIONS.usage(document) == Usage(3, 2)
    assert TRANSCRIPTIONS.flaw(document) is None
    assert not TRANSCRIPTIONS.finished(frames[:-1])


@pytest.mark.parametrize(
    "data",
    [b'{"type":"transcript.text.delta","delta":"transcript.text.done"}', b'{"a":"[DONE]"}', b'"transcript.text.done"'],
)
def test_words_of_a_transcript_do_not_end_it(data: bytes) -> None:
    assert not TRANSCRIPTIONS.terminal(sse_frame(data))


def test_chunks_without_words_are_none() -> None:
    odd = [sse_frame(data) for data in (b'{"choices":[{}]}', b'{"choices":[{"delta":{"content":7}}]}', b"{}")]
    assert TRANSCRIPTIONS.assemble([*odd, *VLLM])["text"] == "a b"


def test_an_error_is_found_and_told() -> None:
    fault = TRANSCRIPTIONS.fault(sse_frame(b'{"error":{"message":"no"}}'))
    assert fault is not None
    assert fault.error == {"message": "no"}
    assert TRANSCRIPTIONS.fault(OPENAI[0]) is None
    assert b'"message":"gone"' in sse_data(TRANSCRIPTIONS.failure(UpstreamBroke("gone")))


def test_neither_form_is_made_of_the_other() -> None:
    assert TRANSCRIPTIONS.both is False
    with pytest.raises(Malformed):
        TRANSCRIPTIONS.render({"text": "a"})
