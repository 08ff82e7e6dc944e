"""One attempt at a call, on real sockets: what goes out, what comes in, and how it fails."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from llmproxy.upstream.client import CallTimeouts, HttpClient, HttpReply, send
from llmproxy.upstream.kinds import GENERIC
from llmproxy.upstream.target import Call, Target
from llmproxy.wire.errors import UpstreamBroke, UpstreamRefused, UpstreamSlow
from llmproxy.wire.headers import HeaderList
from tests.timeouts import WAIT_SECONDS
from tests.upstream.scripted import CHUNKED, Handler, Scripted, Visit, chunk, nothing, scripted

AMPLE = CallTimeouts(connect=WAIT_SECONDS, first_byte=WAIT_SECONDS, idle=WAIT_SECONDS)


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.aclose()


class Clock:
    """The loop's clock, which a test may put forward."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ahead = 0.0

    def __call__(self) -> float:
        return self._now() + self._ahead

    def pass_by(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    loop = asyncio.get_running_loop()
    clock = Clock(loop.time)
    monkeypatch.setattr(loop, "time", clock)
    return clock


def post(body: bytes | AsyncIterator[bytes] = b"{}", target: bytes = b"/", headers: HeaderList | None = None) -> Call:
    return Call("POST", target, headers or [(b"content-type", b"application/json")], body)


async def ok(visit: Visit) -> None:
    await visit.reply(b"ok")


async def whole(reply: HttpReply) -> bytes:
    try:
        return b"".join([piece async for piece in reply.chunks()])
    finally:
        await reply.aclose()


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/v1/models/org%2Fmod:el%20name",
        b"/v1/models/org/mod:el",
        b"//x//",
        b"/a/../b/./c/",
        b"/a?",
        b"/a?x[]=1+2&y=%20&include%5B%5D=a&include%5B%5D=b",
        b"/http://elsewhere/",
        "/ä?ö".encode(),
    ],
)
async def test_path_and_query_arrive_as_they_were_given(client: HttpClient, target: bytes) -> None:
    async with scripted(ok) as server:
        reply = await send(client, Target.at(server.url, GENERIC), post(target=target), AMPLE)
        await reply.aclose()
        assert server.visits[0].line == b"POST " + target + b" HTTP/1.1"


async def test_bytes_that_are_no_text_are_percent_encoded(client: HttpClient) -> None:
    async with scripted(ok) as server:
        await (await send(client, Target.at(server.url, GENERIC), post(target=b"/\xff"), AMPLE)).aclose()
        assert server.visits[0].line == b"POST /%FF HTTP/1.1"


async def test_a_base_url_with_a_path_and_credentials(client: HttpClient) -> None:
    async with scripted(ok) as server:
        target = Target.at(f"http://ann:p%40ss@127.0.0.1:{server.port}/llm/", GENERIC)
        call = post(target=b"/v1/x", headers=[(b"authorization", b"Bearer mine")])
        await (await send(client, target, call, AMPLE)).aclose()
        assert target.name == f"{server.url}/llm"
        assert server.visits[0].path == "/llm/v1/x"
        assert server.visits[0].header(b"authorization") == [b"Basic YW5uOnBAc3M="]


async def test_no_header_is_added_but_host_and_length(client: HttpClient) -> None:
    headers = [(b"x-a", b"1"), (b"x-b", "ü".encode()), (b"x-a", b"2"), (b"accept-encoding", b"identity")]
    async with scripted(ok) as server:
        await (await send(client, Target.at(server.url, GENERIC), post(b"abc", headers=headers), AMPLE)).aclose()
        sent = [(name.lower(), value) for name, value in server.visits[0].headers]
        host = (b"host", f"127.0.0.1:{server.port}".encode())
        assert sent == [host, *headers, (b"content-length", b"3")]


async def test_a_redirect_and_a_cookie_are_only_handed_on(client: HttpClient) -> None:
    async def answer(visit: Visit) -> None:
        await visit.reply(b"", "307 Temporary Redirect", b"location: /there\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n")

    async with scripted(answer) as server:
        # by name: a cookie jar would keep nothing for an address
        target = Target.at(f"http://localhost:{server.port}", GENERIC)
        for _ in range(2):
            reply = await send(client, target, post(), AMPLE)
            assert reply.status == 307
            assert reply.headers[:3] == [(b"location", b"/there"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
            assert await reply.read(100) == b""
        assert [visit.path for visit in server.visits] == ["/", "/"]
        assert server.visits[1].header(b"cookie") == []


async def test_a_compressed_body_stays_as_it_is(client: HttpClient) -> None:
    async def answer(visit: Visit) -> None:
        await visit.reply(b"\x1f\x8bnot really", headers=b"content-encoding: gzip\r\n")

    async with scripted(answer) as server:
        reply = await send(client, Target.at(server.url, GENERIC), post(), AMPLE)
        assert (b"content-encoding", b"gzip") in reply.headers
        assert await whole(reply) == b"\x1f\x8bnot really"


async def test_hop_by_hop_headers_of_the_answer_are_dropped(client: HttpClient) -> None:
    async def answer(visit: Visit) -> None:
        await visit.reply(b"", headers=b"Keep-Alive: timeout=5\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n")

    async with scripted(answer) as server:
        reply = await send(client, Target.at(server.url, GENERIC), post(), AMPLE)
        assert reply.headers == [(b"x-end", b"2"), (b"content-length", b"0")]
        await reply.aclose()


async def test_a_long_response_header_is_taken(client: HttpClient) -> None:
    async def answer(visit: Visit) -> None:
        await visit.reply(b"", headers=b"x-long: " + b"x" * 30_000 + b"\r\n")

    async with scripted(answer) as server:
        reply = await send(client, Target.at(server.url, GENERIC), post(), AMPLE)
        assert len(dict(reply.headers)[b"x-long"]) == 30_000
        await reply.aclose()


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_body_that_flows_goes_out_in_chunks(client: HttpClient) -> None:
    async with scripted(ok) as server:
        await (await send(client, Target.at(server.url, GENERIC), post(pieces(b"ab", b"cd")), AMPLE)).aclose()
        assert server.visits[0].body == b"abcd"
        assert server.visits[0].header(b"transfer-encoding") == [b"chunked"]


async def test_a_body_that_flows_keeps_its_length(client: HttpClient) -> None:
    async with scripted(ok) as server:
        call = post(pieces(b"ab", b"cd"), headers=[(b"content-length", b"4")])
        await (await send(client, Target.at(server.url, GENERIC), call, AMPLE)).aclose()
        assert server.visits[0].body == b"abcd"
        assert server.visits[0].header(b"transfer-encoding") == []


async def test_a_fault_of_the_callers_body_is_raised_as_it_is(client: HttpClient) -> None:
    class Left(Exception):
        pass

    async def leaving() -> AsyncIterator[bytes]:
        yield b"ab"
        raise Left

    async with scripted(ok) as server:
        with pytest.raises(Left):
            await send(client, Target.at(server.url, GENERIC), post(leaving()), AMPLE)


async def test_every_piece_is_delivered_when_it_arrives(client: HttpClient) -> None:
    seen = asyncio.Queue[bytes]()

    async def answer(visit: Visit) -> None:
        await visit.write(CHUNKED)
        for word in (b"one", b"two", b"three"):
            await visit.write(chunk(word))
            assert await asyncio.wait_for(seen.get(), WAIT_SECONDS) == word
        await visit.write(chunk(b""))

    async with scripted(answer) as server:
        reply = await send(client, Target.at(server.url, GENERIC), post(), AMPLE)
        async for piece in reply.chunks():
            seen.put_nowait(piece)
        assert seen.empty()


async def test_reading_is_bounded(client: HttpClient) -> None:
    async def answer(visit: Visit) -> None:
        await visit.reply(b"x" * 100_000)

    async with scripted(answer) as server:
        reply = await send(client, Target.at(server.url, GENERIC), post(), AMPLE)
        assert await reply.read(10) == b"x" * 10
        await reply.aclose()


async def test_closing_closes_the_socket_at_once(client: HttpClient) -> None:
    left = asyncio.Event()

    async def answer(visit: Visit) -> None:
        await visit.write(CHUNKED, chunk(b"one"))
        await visit.left()
        left.set()

    ends: list[None] = []
    async with scripted(answer) as server:
        reply = await send(client, Target.at(server.url, GENERIC), post(), AMPLE, lambda: ends.append(None))
        assert await anext(reply.chunks()) == b"one"
        assert ends == []
        await reply.aclose()
        await reply.aclose()
        await asyncio.wait_for(left.wait(), WAIT_SECONDS)
        assert ends == [None]


async def test_cancelling_closes_the_socket_at_once(client: HttpClient) -> None:
    left = asyncio.Event()

    async def answer(visit: Visit) -> None:
        await visit.left()
        left.set()

    ends: list[None] = []
    async with scripted(answer) as server:
        call = send(client, Target.at(server.url, GENERIC), post(target=b"/c"), AMPLE, lambda: ends.append(None))
        task = asyncio.create_task(call)
        await server.visited("/c")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(left.wait(), WAIT_SECONDS)
        assert ends == [None]


async def test_a_connection_is_used_again(client: HttpClient) -> None:
    async with scripted(ok) as server:
        target = Target.at(server.url, GENERIC)
        fresh = []
        for _ in range(3):
            reply = await send(client, target, post(), AMPLE)
            fresh.append(reply.fresh)
            assert await whole(reply) == b"ok"
            await reply.aclose()
        assert fresh == [True, False, False]
        assert server.connections == 1


def dying_on_reuse(last_words: bytes = b"") -> Handler:
    """Answers the first request of each connection; at the second it says its last words and closes."""
    known: set[int] = set()

    async def answer(visit: Visit) -> None:
        if visit.connection in known:
            await visit.write(last_words)
            visit.close()
        else:
            known.add(visit.connection)
            await visit.reply(b"ok")

    return answer


async def test_a_dead_kept_connection_is_replaced_once(client: HttpClient) -> None:
    async with scripted(dying_on_reuse()) as server:
        target = Target.at(server.url, GENERIC)
        for number in range(2):
            reply = await send(client, target, post(b"%d" % number), AMPLE)
            assert await whole(reply) == b"ok"
        assert [visit.body for visit in server.visits] == [b"0", b"1", b"1"]


async def test_a_body_that_has_begun_to_flow_is_not_sent_again(client: HttpClient) -> None:
    async with scripted(dying_on_reuse()) as server:
        target = Target.at(server.url, GENERIC)
        assert await whole(await send(client, target, post(), AMPLE)) == b"ok"
        with pytest.raises(UpstreamBroke):
            await send(client, target, post(pieces(b"a", b"b")), AMPLE)
        assert len(server.visits) == 2


async def test_no_second_attempt_once_the_answer_has_begun(client: HttpClient) -> None:
    async with scripted(dying_on_reuse(b"HTTP/1.1 200 OK\r\ncontent-le")) as server:
        target = Target.at(server.url, GENERIC)
        assert await whole(await send(client, target, post(), AMPLE)) == b"ok"
        with pytest.raises(UpstreamBroke):
            await send(client, target, post(), AMPLE)
        assert len(server.visits) == 2


async def test_no_second_attempt_on_a_new_connection(client: HttpClient) -> None:
    async def answer(visit: Visit) -> None:
        visit.close()

    ends: list[None] = []
    async with scripted(answer) as server:
        with pytest.raises(UpstreamBroke, match="No proper answer from the model server"):
            await send(client, Target.at(server.url, GENERIC), post(), AMPLE, lambda: ends.append(None))
        assert len(server.visits) == 1
        assert ends == [None]


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


async def test_nobody_listens(client: HttpClient) -> None:
    ends: list[None] = []
    target = Target.at(f"http://127.0.0.1:{free_port()}", GENERIC)
    with pytest.raises(UpstreamRefused) as refused:
        await send(client, target, post(), AMPLE, lambda: ends.append(None))
    assert target.name in refused.value.message
    assert "Connection refused" in refused.value.message
    assert "LLMPROXY_UPSTREAM" in refused.value.message
    assert ends == [None]


async def test_a_name_that_does_not_resolve(client: HttpClient) -> None:
    with pytest.raises(UpstreamRefused, match=r"no-such-host\.invalid"):
        await send(client, Target.at("http://no-such-host.invalid", GENERIC), post(), AMPLE)


async def test_a_server_that_speaks_no_tls(client: HttpClient) -> None:
    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UpstreamRefused):
            await send(client, Target.at(f"https://127.0.0.1:{port}", GENERIC), post(), AMPLE)


async def test_a_port_that_does_not_accept(client: HttpClient) -> None:
    # a full backlog: the kernel leaves further connections unanswered
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        with socket.create_connection(deaf.getsockname()):
            target = Target.at(f"http://127.0.0.1:{deaf.getsockname()[1]}", GENERIC)
            with pytest.raises(UpstreamRefused):
                await send(
                    client, target, post(), CallTimeouts(connect=0.05, first_byte=WAIT_SECONDS, idle=WAIT_SECONDS)
                )


async def test_no_first_byte_in_time(client: HttpClient) -> None:
    ends: list[None] = []
    async with scripted(nothing) as server:
        limits = CallTimeouts(connect=WAIT_SECONDS, first_byte=0.05, idle=WAIT_SECONDS)
        with pytest.raises(UpstreamSlow, match=r"nothing came within 0\.05 s"):
            await send(client, Target.at(server.url, GENERIC), post(), limits, lambda: ends.append(None))
        assert ends == [None]


async def test_a_long_upload_does_not_use_up_the_time_for_the_first_byte(client: HttpClient, clock: Clock) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(3):
            clock.pass_by(0.6 * WAIT_SECONDS)
            await asyncio.sleep(0)
            yield b"x"

    async with scripted(ok) as server:
        assert await whole(await send(client, Target.at(server.url, GENERIC), post(slow()), AMPLE)) == b"ok"


async def test_an_upload_that_stops_is_given_up(client: HttpClient, clock: Clock) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"x"
        clock.pass_by(2 * WAIT_SECONDS)
        await asyncio.Event().wait()

    async with scripted(ok) as server:
        with pytest.raises(UpstreamSlow):
            await send(client, Target.at(server.url, GENERIC), post(stuck()), AMPLE)


async def begins_only(visit: Visit) -> None:
    await visit.write(CHUNKED, chunk(b"one"))
    await visit.left()


async def test_silence_in_the_middle(client: HttpClient) -> None:
    ends: list[None] = []
    async with scripted(begins_only) as server:
        limits = CallTimeouts(connect=WAIT_SECONDS, first_byte=WAIT_SECONDS, idle=0.05)
        reply = await send(client, Target.at(server.url, GENERIC), post(), limits, lambda: ends.append(None))
        assert await anext(reply.chunks()) == b"one"
        with pytest.raises(UpstreamSlow, match=r"fell silent for 0\.05 s"):
            await anext(reply.chunks())
        assert ends == [None]
        await reply.aclose()


@pytest.mark.parametrize("handler", [nothing, begins_only])
async def test_the_total_is_limited(client: HttpClient, handler: Handler) -> None:
    async with scripted(handler) as server:
        limits = CallTimeouts(connect=WAIT_SECONDS, first_byte=WAIT_SECONDS, idle=WAIT_SECONDS, total=0.1)
        with pytest.raises(UpstreamSlow, match=r"within 0\.1 s"):
            await whole(await send(client, Target.at(server.url, GENERIC), post(), limits))


async def test_a_reader_who_takes_its_time_is_not_the_upstreams_silence(client: HttpClient, clock: Clock) -> None:
    go_on = asyncio.Event()

    async def answer(visit: Visit) -> None:
        await visit.write(CHUNKED, chunk(b"one"))
        await go_on.wait()
        await visit.write(chunk(b"two"), chunk(b""))

    async with scripted(answer) as server:
        reply = await send(client, Target.at(server.url, GENERIC), post(), AMPLE)
        assert await anext(reply.chunks()) == b"one"
        for _ in range(3):
            clock.pass_by(2 * WAIT_SECONDS)
            await asyncio.sleep(0)
        go_on.set()
        assert await whole(reply) == b"two"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        CHUNKED + chunk(b"abc"),
        CHUNKED + chunk(b"abc") + b"5\r\nxy",
        CHUNKED + chunk(b"abc") + b"zz\r\nabc\r\n",
    ],
    ids=["short", "no-last-chunk", "cut-in-a-chunk", "bad-chunk"],
)
async def test_a_body_that_breaks_off(client: HttpClient, answer: bytes) -> None:
    async def broken(visit: Visit) -> None:
        await visit.write(answer)
        visit.close()

    async with scripted(broken) as server:
        with pytest.raises(UpstreamBroke):
            await whole(await send(client, Target.at(server.url, GENERIC), post(), AMPLE))


async def test_a_reset_in_the_middle(client: HttpClient) -> None:
    async def answer(visit: Visit) -> None:
        await visit.write(CHUNKED, chunk(b"abc"))
        visit.writer.transport.abort()

    async with scripted(answer) as server:
        with pytest.raises(UpstreamBroke):
            await whole(await send(client, Target.at(server.url, GENERIC), post(), AMPLE))


async def test_something_that_is_not_http(client: HttpClient) -> None:
    async def answer(visit: Visit) -> None:
        await visit.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        visit.close()

    async with scripted(answer) as server:
        with pytest.raises(UpstreamBroke):
            await send(client, Target.at(server.url, GENERIC), post(), AMPLE)


async def test_a_body_that_ends_with_the_connection_is_whole(client: HttpClient) -> None:
    async def answer(visit: Visit) -> None:
        await visit.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
        visit.close()

    async with scripted(answer) as server:
        assert await whole(await send(client, Target.at(server.url, GENERIC), post(), AMPLE)) == b"abc"


async def test_an_interim_response_is_passed_over(client: HttpClient) -> None:
    async def answer(visit: Visit) -> None:
        await visit.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await visit.reply(b"ok")

    async with scripted(answer) as server:
        reply = await send(client, Target.at(server.url, GENERIC), post(), AMPLE)
        assert (reply.status, await whole(reply)) == (200, b"ok")


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE", "OPTIONS", "PUT", "PATCH"])
async def test_every_method_passes(client: HttpClient, method: str) -> None:
    async def answer(visit: Visit) -> None:
        await visit.reply(b"" if method == "HEAD" else b"ok", headers=b"x-a: 1\r\n")

    async with scripted(answer) as server:
        reply = await send(client, Target.at(server.url, GENERIC), Call(method, b"/", []), AMPLE)
        assert await whole(reply) == (b"" if method == "HEAD" else b"ok")
        assert server.visits[0].line.startswith(method.encode())


async def test_many_calls_at_once_each_have_a_connection(client: HttpClient) -> None:
    everyone = asyncio.Barrier(150)

    async def answer(visit: Visit) -> None:
        await everyone.wait()
        await visit.reply(visit.body)

    async def call(server: Scripted, number: int) -> bytes:
        return await whole(await send(client, Target.at(server.url, GENERIC), post(b"%d" % number), AMPLE))

    async with scripted(answer) as server:
        bodies = await asyncio.gather(*(call(server, number) for number in range(150)))
        assert bodies == [b"%d" % number for number in range(150)]


@pytest.mark.parametrize("status", ["101 Switching Protocols", "600 X", "999 X", "099 X", "000 X"])
async def test_a_status_that_ends_no_request_is_an_error(client: HttpClient, status: str) -> None:
    async def answer(visit: Visit) -> None:
        await visit.reply(b"body", status, b"connection: upgrade\r\nupgrade: h2c\r\n" if status < "2" else b"")

    ends: list[None] = []
    async with scripted(answer) as server:
        with pytest.raises(UpstreamBroke):
            await send(client, Target.at(server.url, GENERIC), post(), AMPLE, lambda: ends.append(None))
        assert ends == [None]


@pytest.mark.parametrize(
    "words",
    [
        b"220 mail.example ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 12, 13\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nha",
        b"HTTP/1.1 20",
        b"",
    ],
)
async def test_the_words_of_a_library_are_not_passed_on(client: HttpClient, words: bytes) -> None:
    async def answer(visit: Visit) -> None:
        await visit.write(words)
        visit.close()

    async with scripted(answer) as server:
        with pytest.raises(UpstreamBroke) as broke:
            await whole(await send(client, Target.at(server.url, GENERIC), post(), AMPLE))
    told = broke.value.message.removeprefix("No proper answer from ").removeprefix("The model server at ")
    told = told.removeprefix("the model server at ").removeprefix(server.url)
    assert told in {
        ": the connection was closed before one came.",
        ": what it sent is not HTTP.",
        " broke off in the middle of its answer.",
    }
