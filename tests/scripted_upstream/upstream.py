"""The scripted upstream itself: a thread with an event loop of its own, a listener, and the order of an answer."""

import asyncio
import contextlib
import itertools
import json
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote_to_bytes, urlsplit

from tests.scripted_upstream import transcripts
from tests.scripted_upstream.answers import ENDPOINTS, Answer
from tests.scripted_upstream.bodies import BODIES, STREAMS
from tests.scripted_upstream.codings import CODINGS
from tests.scripted_upstream.elsewhere import SPECIAL, echo, introspection, not_found
from tests.scripted_upstream.faults import INSTEAD, WITHIN, Scene
from tests.scripted_upstream.journal import Gate, Journal, Visit
from tests.scripted_upstream.oddities import ODDITIES, as_it_is
from tests.scripted_upstream.refusals import SHAPES
from tests.scripted_upstream.script import Script
from tests.scripted_upstream.stage import Stage
from tests.timeouts import WAIT_SECONDS


class ScriptedUpstream:
    """A model server of a ``kind`` (``openai``: nothing special, ``llamacpp``, ``ollama``) whose answers are scripted.

    ``weights`` names the model's file or digest and may be changed while it runs, ``lacks`` are paths it does not have.
    """

    def __init__(self, kind: str = "openai", weights: str = "first", lacks: frozenset[str] = frozenset()) -> None:
        self.kind = kind
        self.lacks = lacks
        self.weights = weights
        self.port = 0
        self.journal = Journal()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-upstream", daemon=True)
        self._server: asyncio.Server | None = None
        #: forgotten with the last reference to them, when their connections are closed
        self._writers: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self._gates: dict[str, Gate] = {}
        #: asked for on every path; "" for none
        self.key = ""
        #: while it is closed, nobody learns what the server is
        self.hesitation: Gate | None = None
        #: GET path -> document, in the place of what the kind would say
        self.pages: dict[str, object] = {}
        #: where there are any, 401 for whoever shows none of them as a Bearer token
        self.keys: tuple[str, ...] = ()
        self._answers: dict[bytes, tuple[Callable[[Visit], bytes], str | Callable[[Visit], str]]] = {}
        self._numbers = itertools.count(1)
        self._playing = 0
        #: how many completions were being answered at the same time, at most
        self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def up(self) -> None:
        """Listens, on the same port as before."""
        self._run(self._open())

    def down(self) -> None:
        """Closes the listener and every connection: the next one is refused."""
        self._run(self._close())

    def gate(self) -> Gate:
        """A new gate; scripts name it: ``f"[script:gate={gate.name}]"``."""
        gate = Gate(f"g{next(self._numbers)}", self._loop)
        self._gates[gate.name] = gate
        return gate

    def answer_with(
        self,
        marker: str,
        make: Callable[[Visit], bytes],
        content_type: str | Callable[[Visit], str] = "application/json",
    ) -> None:
        """From now on requests whose body contains ``marker`` get this body, whatever their path."""
        self._answers[marker.encode()] = (make, content_type)

    def visits(self, marker: str) -> list[Visit]:
        """The requests so far whose body or target contains ``marker``."""
        return self.journal.visits(marker)

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        # a connection that was accepted a moment ago is a task of the loop's own for two rounds
        for _ in range(4):
            await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        self._writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        stage = Stage(reader, writer, next(self._numbers))
        try:
            while not stage.broken and (visit := await stage.request(self._numbers)) is not None:
                await self._serve(stage, visit)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test ends
        finally:
            writer.close()

    async def _serve(self, stage: Stage, visit: Visit) -> None:
        """Answers one request, and notices when the client leaves before the end."""
        self.journal.note(visit)
        answering = asyncio.ensure_future(self._answer(stage, visit))
        watching = asyncio.ensure_future(stage.gone())
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done() and answering.exception() is None:
                visit.answered.set()
            else:
                visit.left.set()
                stage.broken = True
        finally:
            answering.cancel()
            watching.cancel()
            # not "suppress(CancelledError)": this task may be cancelled here itself, and is to end then
            await asyncio.gather(answering, watching, return_exceptions=True)

    async def _answer(self, stage: Stage, visit: Visit) -> None:
        for word, (make, content_type) in self._answers.items():
            if word in visit.body:
                kind = content_type if isinstance(content_type, str) else content_type(visit)
                return await stage.whole(200, kind, make(visit))
        if self.keys and visit.header("authorization") not in [f"Bearer {key}" for key in self.keys]:
            content_type, refusal = SHAPES["openai"](401)
            return await stage.whole(401, content_type, refusal)
        path = urlsplit(visit.target.decode("latin-1")).path
        stage.further = Script.of(visit.body).fields
        if self.key and visit.header("authorization") != f"Bearer {self.key}":
            return await stage.whole(401, "application/json", b'{"error": {"message": "Invalid API Key", "code": 401}}')
        if path in self.lacks:
            return await not_found(stage, visit)
        if visit.method == "POST" and (path in ENDPOINTS or path == transcripts.PATH):
            self._playing += 1
            self.most_at_once = max(self.most_at_once, self._playing)
            try:
                return await self._play(stage, visit, path)
            finally:
                self._playing -= 1
        pages = introspection(self.kind, self.weights) | self.pages
        if visit.method == "GET" and path in pages:
            if self.hesitation is not None:
                await self.hesitation.pass_through()
            return await stage.whole(200, "application/json", json.dumps(pages[path]).encode())
        await self._gated(Script.of(unquote_to_bytes(visit.target)))
        special = next((play for prefix, play in SPECIAL.items() if path.startswith(prefix)), echo)
        return await special(stage, visit)

    async def _gated(self, script: Script) -> None:
        if script.gate:
            await self._gates[script.gate].pass_through()

    async def _play(self, stage: Stage, visit: Visit, path: str) -> None:
        """One completion as its script wants it. Bodies are read as leniently as a server may."""
        request = transcripts.fields_of(visit) if path == transcripts.PATH else _object(visit.body)
        if request is None:
            content_type, body = SHAPES["llamacpp"](400)
            await stage.whole(400, content_type, body)
            return
        script = Script.of(visit.body)
        if script.times and self.journal.repeats(visit) > script.times:
            script = Script()
        endpoint, streams = ENDPOINTS.get(path, (transcripts.transcript, False))
        answer = endpoint(visit.number, request, script)
        streamed = request.get("stream", streams) and bool(answer.frames)
        instead = INSTEAD.get(script.fault) or BODIES.get(script.fault)
        if streamed:
            instead = instead or STREAMS.get(script.fault)
        if not script.gate_after and script.fault not in WITHIN:
            await self._gated(script)
        if script.coding:
            await _coded(stage, answer, script, stream=request.get("stream", streams) and bool(answer.frames))
        elif script.status != 200:
            content_type, body = SHAPES[script.shape](script.status)
            retry = [("retry-after", script.retry)] if script.retry else []
            retry += [("location", "/elsewhere")] if script.status < 400 else []
            await stage.whole(script.status, content_type, body, [("x-request-id", f"up-{visit.number}"), *retry])
        elif instead is not None:
            await instead(Scene(stage, answer))
        elif streamed:
            await self._stream(stage, answer, script)
        else:
            await stage.whole(200, answer.content_type, answer.body, [("x-request-id", f"up-{visit.number}")])

    async def _stream(self, stage: Stage, answer: Answer, script: Script) -> None:
        await stage.head(200, [("content-type", answer.stream_type), ("transfer-encoding", "chunked")])
        if script.fault:
            for frame in answer.frames[: script.after]:
                await stage.chunk(frame)
            await self._gated(script)
            return await WITHIN[script.fault](Scene(stage, answer, answer.frames[script.after :]))
        before, after = answer.frames[: script.gate_after], answer.frames[script.gate_after :]
        await as_it_is(stage, before)
        if before:
            await self._gated(script)
        await ODDITIES.get(script.oddity, as_it_is)(stage, after)
        return await stage.end()


async def _coded(stage: Stage, answer: Answer, script: Script, *, stream: bool) -> None:
    name, encode = CODINGS[script.coding]
    content_type, body = answer.content_type, answer.body
    if script.status != 200:
        content_type, body = SHAPES[script.shape](script.status)
    elif stream:
        content_type, body = answer.stream_type, b"".join(answer.frames)
    body = encode(body)
    headers = [("content-type", content_type), ("content-encoding", name), ("transfer-encoding", "chunked")]
    await stage.head(script.status, headers)
    for start in range(0, len(body), 50):
        await stage.chunk(body[start : start + 50])
    await stage.end()


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
