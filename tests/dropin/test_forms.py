"""Plain or as a stream: each caller gets what the model server itself would have answered in that form."""

import json
from typing import Any

import httpx
import pytest

from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream, Visit

Json = dict[str, Any]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SSE = "text/event-stream"
HEAD = {"id": "c", "created": 1, "model": "m"}


def call(arguments: Any, **members: Any) -> Json:
    return {**members, "type": "function", "function": {"name": "f", "arguments": arguments}}


def sse(*chunks: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def chunk(delta: Json, finish: str | None = None, **members: Any) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **members}
    return HEAD | {"object": "chat.completion.chunk", "choices": [choice]}


def stream(*deltas: Json, finish: str = "stop") -> bytes:
    return sse(*map(chunk, deltas), chunk({}, finish))


def document(finish: str = "stop", **message: Any) -> Json:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x", **message}, "finish_reason": finish}
    return HEAD | {"object": "chat.completion", "choices": [choice]}


class Server:
    """Answers one word in both forms."""

    def __init__(self, upstream: ScriptedUpstream, plain: Json, streamed: bytes, kind: str = SSE) -> None:
        self.word = marker()
        self.plain, self.streamed, self._kind = json.dumps(plain).encode(), streamed, kind
        self._upstream = upstream
        upstream.answer_with(self.word, self._answer, self._type)

    def _is_stream(self, visit: Visit) -> bool:
        return bool(visit.json.get("stream", self._kind != SSE))

    def _answer(self, visit: Visit) -> bytes:
        return self.streamed if self._is_stream(visit) else self.plain

    def _type(self, visit: Visit) -> str:
        return self._kind if self._is_stream(visit) else "application/json"

    def body(self, **more: Any) -> Json:
        return {"model": "m", "messages": [{"role": "user", "content": self.word}], **more}

    @property
    def calls(self) -> int:
        return len(self._upstream.visits(self.word))


async def asked(http: httpx.AsyncClient, server: Server, *, stream: bool, path: str = CHAT, **more: Any) -> str:
    """Asks; the answer is the server's in this form. Returns what the cache says."""
    heard = await http.post(path, json=server.body(stream=stream, **more))
    assert heard.status_code == 200, heard.text
    if stream:
        assert heard.content == server.streamed
    else:
        assert heard.json() == json.loads(server.plain)
    return heard.headers["x-cache"]


A, B = '{"n":1}', '{"n":2}'
TWO = [call(A, id="a"), call(B, id="b")]

#: streams that only their server can put together, each with the plain answer that it gives
OF_ONE_FORM: dict[str, tuple[Json, bytes]] = {
    "calls without ids that share an index": (
        document("tool_calls", content=None, tool_calls=TWO),
        stream({"tool_calls": [call(A, index=0)]}, {"tool_calls": [call(B, index=0)]}, finish="tool_calls"),
    ),
    "calls without ids and indexes": (
        document("tool_calls", content=None, tool_calls=TWO),
        stream({"tool_calls": [call(A)]}, {"tool_calls": [call(B)]}, finish="tool_calls"),
    ),
    "arguments as an object": (
        document("tool_calls", content=None, tool_calls=[call(A, id="a")]),
        stream({"tool_calls": [call({"n": 1}, id="a", index=0)]}, finish="tool_calls"),
    ),
    "content in parts": (
        document(content=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "x"}]),
        stream({"content": [{"type": "thinking", "thinking": "hm"}]}, {"content": "x"}),
    ),
    "a message beside the delta": (
        document(content="xy"),
        sse(
            chunk({"content": "x"}, message={"content": "x"}),
            chunk({"content": "y"}, "stop", message={"content": "xy"}),
        ),
    ),
    "a message instead of a delta": (
        document(content="xy"),
        sse(HEAD | {"choices": [{"index": 0, "message": {"content": "xy"}, "finish_reason": "stop"}]}),
    ),
    "details of reasoning in fragments": (
        document(reasoning_details=[{"type": "reasoning.text", "text": "ab"}]),
        stream(
            {"content": "", "reasoning_details": [{"type": "reasoning.text", "text": "a"}]},
            {"content": "x", "reasoning_details": [{"type": "reasoning.text", "text": "b"}]},
        ),
    ),
    "a member nobody knows, in pieces": (
        document(thought="abab"),
        stream({"content": "x", "thought": "ab"}, {"thought": "ab"}),
    ),
    "a member of the chunks with several values": (
        document() | {"sources": [1, 2]},
        sse(chunk({"content": "x"}) | {"sources": [1]}, chunk({}, "stop") | {"sources": [2]}),
    ),
}


@pytest.mark.parametrize("name", OF_ONE_FORM)
async def test_a_plain_answer_is_not_made_of_what_cannot_be_told(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, name: str
) -> None:
    server = Server(upstream, *OF_ONE_FORM[name])
    assert [await asked(http, server, stream=form) for form in (True, False)] == ["MISS", "MISS"]
    assert [await asked(http, server, stream=form) for form in (True, False)] == ["HIT", "HIT"]
    assert server.calls == 2


#: plain answers of which no stream can be made
PLAIN_ONLY = {
    "content in parts": document(content=[{"type": "text", "text": "x"}]),
    "a null without anything in its place": document(content=None),
    "calls with numbers of their own": document("tool_calls", content=None, tool_calls=[call(A, id="a", index=7)]),
    "another object": document() | {"object": "completion"},
}


@pytest.mark.parametrize("name", PLAIN_ONLY)
async def test_a_stream_is_not_made_of_what_would_not_come_back(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, name: str
) -> None:
    server = Server(upstream, PLAIN_ONLY[name], stream({"content": "x"}))
    assert await asked(http, server, stream=False) == "MISS"
    assert await asked(http, server, stream=True) == "MISS"
    assert [await asked(http, server, stream=form) for form in (True, False)] == ["HIT", "HIT"]
    assert server.calls == 2


@pytest.mark.parametrize(
    "deltas",
    [
        [{"tool_calls": [call(A, id="a", index=0)]}, {"tool_calls": [call(B, id="b", index=0)]}],
        [{"tool_calls": [call(A, id="a"), call(B, id="b")]}],
        [{"tool_calls": [call(A, id="a", index=None)]}, {"tool_calls": [call(B, id="b", index=None)]}],
        [{"content": None}, {"tool_calls": [call(A, id="a", index=0), call(B, id="b", index=1)]}],
    ],
)
async def test_calls_with_ids_are_put_together_without_asking(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, deltas: list[Json]
) -> None:
    plain = document("tool_calls", content=None, tool_calls=TWO)
    server = Server(upstream, plain, stream(*deltas, finish="tool_calls"))
    assert await asked(http, server, stream=True) == "MISS"
    assert await asked(http, server, stream=False) == "HIT"
    assert server.calls == 1


async def test_odd_first_and_last_chunks_lose_nothing(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    filters = {"prompt_filter_results": [{"prompt_index": 0}]}
    usage = {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
    plain = document(content="xy") | filters | usage
    streamed = sse(
        {"id": "", "created": 0, "model": "", "choices": [], **filters},
        chunk({"role": "assistant", "content": "x"}, ""),
        chunk({"content": "y"}, ""),
        chunk({}, "stop") | usage,
    )
    server = Server(upstream, plain, streamed)
    assert await asked(http, server, stream=True) == "MISS"
    assert await asked(http, server, stream=False) == "HIT"


async def test_a_null_in_a_list_of_prompts_is_no_chunk(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    texts = [{"index": at, "text": text, "finish_reason": "length"} for at, text in enumerate("xy")]
    head = HEAD | {"object": "text_completion"}
    server = Server(upstream, head | {"choices": texts}, sse(None, *(head | {"choices": [text]} for text in texts)))
    for cache in ("MISS", "HIT"):
        assert await asked(http, server, stream=True, path=COMPLETIONS) == cache
    assert await asked(http, server, stream=False, path=COMPLETIONS) == "HIT"


COUNTS = {"total_duration": 9, "prompt_eval_count": 1, "eval_count": 2, "done_reason": "stop"}


def lines(*documents: Json) -> bytes:
    return b"".join(json.dumps({"model": "m", "created_at": "t", **each}).encode() + b"\n" for each in documents)


def native(path: str) -> tuple[Json, bytes]:
    """An answer of Ollama's in both forms."""
    if path == "/api/generate":
        pieces: list[Json] = [
            {"response": "", "thinking": "h", "done": False},
            {"response": "", "thinking": "m", "done": False, "logprobs": [{"token": "m"}]},
            {"response": "x", "done": False, "logprobs": [{"token": "x"}]},
        ]
        last = {"response": "", "done": True, "context": [1, 2], **COUNTS}
        whole = last | {"response": "x", "thinking": "hm"}
    else:
        calls = [{"function": {"index": 0, "name": "f", "arguments": {"n": n}}} for n in (1, 2)]
        pieces = [
            {"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False},
            {"message": {"role": "assistant", "content": "x"}, "done": False, "logprobs": [{"token": "m"}]},
            *({"message": {"role": "assistant", "content": "", "tool_calls": [one]}, "done": False} for one in calls),
            {"message": {"role": "assistant", "content": "y"}, "done": False, "logprobs": [{"token": "x"}]},
        ]
        last = {"message": {"role": "assistant", "content": ""}, "done": True, **COUNTS}
        whole = last | {"message": {"role": "assistant", "content": "xy", "thinking": "hm", "tool_calls": calls}}
    plain = {"model": "m", "created_at": "t", **whole, "logprobs": [{"token": "m"}, {"token": "x"}]}
    return plain, lines(*pieces, last)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_ollamas_two_forms_are_one_answer(upstream: ScriptedUpstream, http: httpx.AsyncClient, path: str) -> None:
    server = Server(upstream, *native(path), kind="application/x-ndjson")
    more = {"prompt": "x"}
    # nothing said means a stream
    heard = await http.post(path, json=server.body(**more))
    assert heard.content == server.streamed
    assert heard.headers["content-type"] == "application/x-ndjson"
    assert await asked(http, server, stream=True, path=path, **more) == "HIT"
    assert await asked(http, server, stream=False, path=path, **more) == "HIT"
    plain = await http.post(path, json=server.body(stream=False, **more))
    assert plain.headers["content-type"] == "application/json; charset=utf-8"
    assert server.calls == 1


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_ollamas_plain_answer_makes_a_stream(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, path: str
) -> None:
    plain, streamed = native(path)
    server = Server(upstream, plain, streamed, kind="application/x-ndjson")
    more = {"prompt": "x"}
    assert await asked(http, server, stream=False, path=path, **more) == "MISS"
    heard = await http.post(path, json=server.body(**more))
    assert (heard.headers["x-cache"], heard.headers["content-type"]) == ("HIT", "application/x-ndjson")
    said = [json.loads(line) for line in heard.text.splitlines()]
    assert [line["done"] for line in said] == [False] * (len(said) - 1) + [True]
    for name in ("thinking", "content", "response"):
        told = [line.get("message", line).get(name, "") for line in said]
        assert "".join(told) == plain.get("message", plain).get(name, "")
        assert told[-1] == ""
    assert {**said[-1], **plain} | {"logprobs": 0} == plain | {"logprobs": 0}
    assert [log for line in said for log in line.get("logprobs", [])] == plain["logprobs"]
    assert server.calls == 1


@pytest.mark.parametrize("spelling", ["Stream", "STREAM"])
async def test_ollama_takes_names_in_any_case(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, spelling: str
) -> None:
    word = marker()
    plain, _ = native("/api/generate")
    upstream.answer_with(word, lambda visit: json.dumps(plain).encode())
    for _ in range(2):
        heard = await http.post("/api/generate", json={"model": "m", "prompt": word, spelling: False})
        assert heard.json() == plain


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


@pytest.mark.parametrize("trace", [None, dict.fromkeys(USAGE, 0)], ids=["null", "zeros"])
@pytest.mark.parametrize("order", [(True, False), (False, True)], ids=["asked first", "unasked first"])
async def test_asking_for_usage_leaves_no_trace(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, trace: Any, order: tuple[bool, bool]
) -> None:
    word = marker()
    said = [chunk({"content": "x"}), chunk({}, "stop")]

    def answer(visit: Visit) -> bytes:
        return direct(bool((visit.json.get("stream_options") or {}).get("include_usage")))

    def direct(wanted: bool) -> bytes:
        if not wanted:
            return sse(*said)
        return sse(*(each | {"usage": trace} for each in said), HEAD | {"choices": [], "usage": USAGE})

    upstream.answer_with(word, answer, SSE)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": word}]}
    for wanted in (*order, *order):
        heard = await http.post(CHAT, json=body | ({"stream_options": {"include_usage": True}} if wanted else {}))
        assert told(heard.content) == told(direct(wanted))
    assert len(upstream.visits(word)) == 1


def told(body: bytes) -> list[Any]:
    return [json.loads(event.removeprefix("data: ")) for event in body.decode().split("\n\n")[:-2]]


@pytest.mark.parametrize(
    "field",
    [
        {"return_progress": True},
        {"timings_per_token": True},
        {"stream_options": {"include_obfuscation": False}},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        {"stream_options": {"something": "new"}},
    ],
    ids=str,
)
async def test_what_changes_the_frames_is_another_request(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, field: Json
) -> None:
    word = marker()
    upstream.answer_with(word, lambda visit: stream({"content": str(visit.number)}), SSE)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": word}]}
    seen = [(await http.post(CHAT, json=body | more)).content for more in ({}, field, {}, field)]
    assert seen[0] == seen[2] != seen[1] == seen[3]
