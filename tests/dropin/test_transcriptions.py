"""Transcriptions through the proxy: a form goes up as it came, its answer is kept by the recording and the fields."""

import asyncio
import hashlib
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

PATH = "/v1/audio/transcriptions"
RECORDING = b"RIFF\x00\x01\r\n--not-the-boundary\r\n" + bytes(range(256)) * 40


@pytest.fixture
def client(front: Proxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=front.url, timeout=60, trust_env=False) as client:
        yield client


def ask(
    client: httpx.Client,
    word: str,
    fields: dict[str, str] | None = None,
    name: str = "a.wav",
    recording: bytes = RECORDING,
) -> httpx.Response:
    """Posts a form, each time with a boundary of its own."""
    data = {"model": "scribe", "prompt": word, **(fields or {})}
    answer = client.post(PATH, files={"file": (name, recording, "audio/wav")}, data=data)
    assert answer.status_code == 200, answer.text
    return answer


def test_the_same_recording_and_fields_are_a_hit(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    word = marker()
    first, second = ask(client, word), ask(client, word)
    assert first.request.headers["content-type"] != second.request.headers["content-type"], "two boundaries"
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert first.content == second.content
    assert first.headers["content-type"] == second.headers["content-type"] == "application/json"
    assert "stored" in first.headers["cache-status"]
    assert len(upstream.visits(word)) == 1


def test_the_name_of_the_file_is_no_part_of_the_key(client: httpx.Client) -> None:
    word = marker()
    assert ask(client, word, name="a.wav").content == ask(client, word, name="b.mp3").content


def test_another_recording_is_a_miss(client: httpx.Client) -> None:
    word = marker()
    assert ask(client, word).headers["x-cache"] == "MISS"
    assert ask(client, word, recording=RECORDING + b"\0").headers["x-cache"] == "MISS"


@pytest.mark.parametrize(
    "change",
    [
        {"language": "de"},
        {"temperature": "0.2"},
        {"response_format": "text"},
        {"stream": "true"},
        {"model": "another"},
        {"timestamp_granularities[]": "word"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_field_is_a_miss(client: httpx.Client, change: dict[str, str]) -> None:
    word = marker()
    assert ask(client, word).headers["x-cache"] == "MISS"
    assert ask(client, word, change).headers["x-cache"] == "MISS"
    assert ask(client, word).headers["x-cache"] == "HIT"


def test_temperatures_are_compared_by_value(client: httpx.Client) -> None:
    word = marker()
    ask(client, word, {"temperature": "0"})
    assert ask(client, word, {"temperature": "0.0"}).headers["x-cache"] == "HIT"


def test_the_form_goes_up_byte_for_byte(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    word = marker()
    answer = ask(client, word, {"include[]": "logprobs"})
    visit, sent = upstream.visits(word)[0], answer.request.read()
    assert visit.body == sent
    assert visit.digest.hexdigest() == hashlib.sha256(sent).hexdigest()
    assert visit.header("content-type") == answer.request.headers["content-type"]
    assert visit.target == PATH.encode()


@pytest.mark.parametrize(
    ("format", "content_type", "begins"),
    [
        ("json", "application/json", '{"text": "answer-'),
        ("verbose_json", "application/json", '{"task": "transcribe"'),
        ("text", "text/plain; charset=utf-8", "answer-"),
        ("srt", "text/plain; charset=utf-8", "1\n00:00:00,000 --> "),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n00:00.000 --> "),
    ],
)
def test_every_format_comes_as_the_upstream_wrote_it(
    client: httpx.Client, format: str, content_type: str, begins: str
) -> None:
    word = marker()
    answers = [ask(client, word, {"response_format": format}) for _ in range(2)]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT"]
    for answer in answers:
        assert answer.headers.get_list("content-type") == [content_type]
        assert answer.text.startswith(begins)
        assert answer.headers["content-length"] == str(len(answer.content))
    assert answers[0].content == answers[1].content


def test_a_stream_is_replayed(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    word = marker()
    answers = [ask(client, word, {"stream": "true"}) for _ in range(2)]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT"]
    assert answers[0].content == answers[1].content
    assert answers[1].headers.get_list("content-type") == ["text/event-stream"]
    assert answers[1].text.count('"transcript.text.delta"') == 6
    assert '"transcript.text.done"' in answers[1].text.split("\n\n")[-2]
    assert len(upstream.visits(word)) == 1


def test_a_model_that_does_not_stream_answers_as_it_can(client: httpx.Client) -> None:
    word = marker()
    first, second = [ask(client, word, {"stream": "true", "model": "whisper-1"}) for _ in range(2)]
    assert first.headers["content-type"] == second.headers["content-type"] == "application/json"
    assert first.json().keys() == second.json().keys() == {"text", "usage"}


def test_a_stream_that_breaks_off_is_not_kept(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    word = marker()
    for _ in range(2):
        answer = ask(client, f"{word} [script:cut after=2]", {"stream": "true"})
        assert answer.headers["x-cache"] == "MISS"
        assert "transcript.text.done" not in answer.text
        assert '"error"' in answer.text.split("\n\n")[-2]
    assert len(upstream.visits(word)) == 2


async def test_at_the_same_time_it_is_transcribed_once(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    word, gate = marker(), upstream.gate()
    data = {"model": "scribe", "prompt": f"{word} [script:gate={gate.name}]"}
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(http.post(PATH, files={"file": ("a.wav", RECORDING)}, data=data)) for _ in range(4)]
        await gate.arrived.reached()
        gate.open()
    answers = [task.result() for task in asking]
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers["x-cache"] for answer in answers].count("MISS") == 1
    assert len(upstream.visits(word)) == 1


@pytest.mark.parametrize("words", ["data: one two", "event: seen", ": a pause", "{no json}", "id: 7"])
def test_a_text_may_look_like_anything(client: httpx.Client, upstream: ScriptedUpstream, words: str) -> None:
    word = marker()
    upstream.answer_with(word, lambda visit: words.encode(), "text/plain")
    first, second = [ask(client, word, {"response_format": "text"}) for _ in range(2)]
    assert (first.text, second.text, second.headers["x-cache"]) == (words, words, "HIT")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"error": {"message": "no"}}'),
        ("application/json", b"no"),
        ("text/plain", b" \n"),
        ("text/html", b"<!DOCTYPE html><p>busy"),
        ("application/json", b'{"words": []}'),
    ],
)
def test_what_is_no_transcript_is_passed_on_once(
    client: httpx.Client, upstream: ScriptedUpstream, content_type: str, body: bytes
) -> None:
    word = marker()
    upstream.answer_with(word, lambda visit: body, content_type)
    for _ in range(2):
        answer = ask(client, word)
        assert (answer.content, answer.headers["content-type"]) == (body, content_type)
        assert answer.headers["x-cache"] == "MISS"


def form(*lines: bytes) -> bytes:
    return b"\r\n".join(lines)


FIELD = (b"--x", b'Content-Disposition: form-data; name="model"', b"", b"scribe")
FILE = (b"--x", b'Content-Disposition: form-data; name="file"; filename="a"', b"", b"RIFF")


@pytest.mark.parametrize(
    ("content_type", "body", "param"),
    [
        ("multipart/form-data", form(*FIELD, b"--x--", b""), None),
        ("multipart/form-data; boundary=x", b"RIFF", None),
        ("multipart/form-data; boundary=x", form(*FIELD, *FILE), None),
        ("multipart/form-data; boundary=x", form(*FIELD, *FILE, *FILE, b"--x--", b""), "file"),
        ("multipart/form-data; boundary=x", form(*FIELD, *FIELD, b"--x--", b""), "model"),
        (
            "multipart/form-data; boundary=x",
            form(b"--x", b'Content-Disposition: form-data; name="stream"', b"", b"maybe", b"--x--", b""),
            "stream",
        ),
        (
            "multipart/form-data; boundary=x",
            form(b"--x", b'Content-Disposition: form-data; name="file.name"', b"", b"a", b"--x--", b""),
            "file.name",
        ),
    ],
    ids=["no boundary", "no form", "cut off", "two files", "two models", "no flag", "a name of ours"],
)
def test_a_broken_form_is_refused(client: httpx.Client, content_type: str, body: bytes, param: str | None) -> None:
    answer = client.post(PATH, content=body, headers={"content-type": content_type})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_a_body_that_is_no_form_is_the_upstreams_to_judge(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    word = marker()
    answer = client.post(PATH, json={"model": "scribe", "url": word})
    assert answer.status_code == 400
    assert answer.headers["x-cache"] == "BYPASS"
    assert len(upstream.visits(word)) == 1


def test_an_error_is_the_upstreams_own(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    word = f"{marker()} [script:status=404 shape=llamacpp]"
    answers = [
        httpx.post(url + PATH, files={"file": ("a.wav", RECORDING)}, data={"prompt": word}, trust_env=False)
        for url in (str(client.base_url), upstream.url)
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content


def test_a_server_without_the_endpoint_says_so_itself(proxy: MakeProxy) -> None:
    with ScriptedUpstream("llamacpp", lacks=frozenset({PATH})) as server:
        front = proxy(server.url)
        answer = httpx.post(front.url + PATH, files={"file": ("a.wav", RECORDING)}, trust_env=False)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "404 page not found"


def test_a_body_that_is_too_large_is_refused(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    front = proxy(upstream.url, max_body_bytes=4096)
    answer = httpx.post(front.url + PATH, files={"file": ("a.wav", RECORDING)}, data={"model": "m"}, trust_env=False)
    assert answer.status_code == 413


def test_directives_hold_as_everywhere(client: httpx.Client) -> None:
    word = marker()

    def asked(**headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.post(PATH, files={"file": ("a.wav", RECORDING)}, data={"prompt": word}, headers=named)

    assert asked(cache_control="only-if-cached").status_code == 504
    assert asked(cache_control="no-store").headers["x-cache"] == "BYPASS"
    assert asked().headers["x-cache"] == "MISS"
    assert asked(cache_control="only-if-cached").headers["x-cache"] == "HIT"
    assert asked(cache_control="no-cache").headers["x-cache"] == "MISS"
    assert asked(x_llmproxy_namespace=word).headers["x-cache"] == "MISS"
    refused = asked(x_llmproxy_ttl="soon")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "X-LLMProxy-TTL")


def test_history_shows_the_file_by_its_digest(client: httpx.Client) -> None:
    word = marker()
    id = ask(client, word, {"temperature": "0"}, "meeting.wav").headers["x-request-id"]
    row = client.get(f"/api/history/{id}").json()
    assert row["request"]["body"] == {
        "model": "scribe",
        "prompt": word,
        "temperature": 0.0,
        "file": {"sha256": hashlib.sha256(RECORDING).hexdigest(), "bytes": len(RECORDING)},
        "file.name": "meeting.wav",
        "file.type": "audio/wav",
    }
    assert row["endpoint"] == "transcriptions"
    assert row["response"]["body"]["text"].startswith("answer-")
    assert row["completion_tokens"] == 6


def test_the_official_client(front: Proxy) -> None:
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key="-", max_retries=0) as client:
        word = marker()
        made = [
            client.audio.transcriptions.create(file=("a.wav", RECORDING), model="scribe", prompt=word) for _ in range(2)
        ]
        assert made[0].text == made[1].text != ""
        text = client.audio.transcriptions.create(
            file=("a.wav", RECORDING), model="scribe", prompt=word, response_format="text"
        )
        assert text.startswith("answer-")
        verbose = client.audio.transcriptions.create(
            file=("a.wav", RECORDING),
            model="scribe",
            prompt=word,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
        assert (verbose.duration, verbose.language) == (1.5, "english")
        for _ in range(2):
            events = list(
                client.audio.transcriptions.create(file=("a.wav", RECORDING), model="scribe", prompt=word, stream=True)
            )
            assert [event.type for event in events] == ["transcript.text.delta"] * 6 + ["transcript.text.done"]
