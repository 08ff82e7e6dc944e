"""All model servers together: found, picked, identified, remembered."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest

from llmproxy.database.engine import open_database
from llmproxy.upstream.identity import IdentityStore
from llmproxy.upstream.target import Call, Document, Target
from llmproxy.upstream.upstreams import AnswerOrigin, Upstreams
from llmproxy.wire.errors import NotFound, UpstreamRefused
from tests.timeouts import WAIT_SECONDS
from tests.upstream.configured import configured
from tests.upstream.scripted import Handler, Visit, nothing, scripted


class Llama:
    """What a llama.cpp with one model says."""

    def __init__(self, model: str = "a", path: str = "/models/a.gguf") -> None:
        self.model = model
        self.path = path
        self.loading = False

    async def __call__(self, visit: Visit) -> None:
        if self.loading:
            await visit.json({"error": {"message": "Loading model", "code": 503}}, "503 Service Unavailable")
        elif visit.path == "/props":
            await visit.json({"default_generation_settings": {"params": {}}, "model_path": self.path})
        elif visit.path == "/v1/models":
            await visit.json({"data": [{"id": self.model}]})
        else:
            await visit.reply(b"ok")


async def ollama(visit: Visit) -> None:
    pages: dict[str, Document] = {
        "/api/version": {"version": "0.12"},
        "/api/tags": {"models": [{"name": "m:latest", "digest": "d"}]},
        "/v1/models": {"data": [{"id": "m:latest"}]},
    }
    if visit.path in pages:
        await visit.json(pages[visit.path])
    else:
        await visit.reply(b"404 page not found", "404 Not Found")


class Pages:
    """An Ollama whose models can be changed. ``contexts`` are told of those that are loaded."""

    def __init__(self, *names: str) -> None:
        self.digests = dict.fromkeys(names, "d")
        self.contexts: dict[str, int] = {}

    async def __call__(self, visit: Visit) -> None:
        pages: dict[str, Document] = {
            "/api/version": {"version": "0.12"},
            "/api/tags": {"models": [{"name": name, "digest": digest} for name, digest in self.digests.items()]},
            "/api/ps": {"models": [{"name": name, "context_length": n} for name, n in self.contexts.items()]},
            "/v1/models": {"data": [{"id": name} for name in self.digests]},
        }
        if visit.path in pages:
            await visit.json(pages[visit.path])
        else:
            await visit.reply(b"ok")


async def no_model_server(visit: Visit) -> None:
    await visit.reply(b"<h1>Not Found</h1>", "404 Not Found")


def free_url() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


@asynccontextmanager
async def opened(
    *urls: str,
    store: IdentityStore | None = None,
    usual: dict[str, str] | None = None,
    key: str | None = None,
    wait: float = 0.25,
) -> AsyncIterator[Upstreams]:
    # far apart: readings happen when a test asks for them
    settings = configured(upstream=urls, identity_seconds=1000, identity_wait=wait, upstream_api_key=key)
    upstreams = Upstreams(settings, store, usual or {})
    await upstreams.open()
    try:
        yield upstreams
    finally:
        await upstreams.close()


CHAT = "/v1/chat/completions"
CALL = Call("POST", b"/v1/chat/completions", [], b"{}")


def origin(target: Target, identity: str | None, model: str = "a") -> AnswerOrigin:
    """Of an answer that has ended just now, to a request whose key was made of ``identity`` a moment before."""
    assert identity is not None
    return AnswerOrigin(target, model, CHAT, identity, monotonic(), monotonic())


async def answer(upstreams: Upstreams, target: Target) -> bytes:
    reply = await upstreams.send(target, CALL)
    try:
        return await reply.read(100)
    finally:
        await reply.aclose()


async def test_servers_are_recognised() -> None:
    async with scripted(Llama()) as llama, scripted(ollama) as other, opened(llama.url, other.url) as upstreams:
        assert [target.kind.name for target in upstreams.targets] == ["llama.cpp", "ollama"]
        assert upstreams.describe() == f"llama.cpp at {llama.url}, ollama at {other.url}"
        assert upstreams.up() == {llama.url: True, other.url: True}
        assert upstreams.ready() == (True, upstreams.describe())


async def test_a_model_is_served_by_who_lists_it() -> None:
    async with scripted(Llama()) as llama, scripted(ollama) as other, opened(llama.url, other.url) as upstreams:
        picked = {name: (await upstreams.pick(name, CHAT, [])).name for name in ("a", "m:latest", "m", " M ", "")}
        assert picked == {
            "a": llama.url,
            "m:latest": other.url,
            "m": other.url,
            " M ": other.url,
            "": llama.url,
        }


async def test_of_several_none_gets_a_request_for_a_model_that_it_does_not_list() -> None:
    async with scripted(Llama()) as llama, scripted(ollama) as other, opened(llama.url, other.url) as upstreams:
        with pytest.raises(NotFound, match="gpt-4o") as unknown:
            await upstreams.pick("gpt-4o", CHAT, [])
        assert unknown.value.error_code == "model_not_found"
        assert (await upstreams.pick("a", "/api/chat", [])).name == other.url, "the only one that has this path"
        assert (await upstreams.pick_for_path("new", "/api/pull", [])).name == other.url
        with pytest.raises(NotFound):
            await upstreams.pick_for_path("new", "/v1/messages/count_tokens", [])
    async with scripted(Llama()) as llama, opened(llama.url) as upstreams:
        assert (await upstreams.pick("gpt-4o", CHAT, [])).name == llama.url, "the only one gets everything"


async def test_a_model_that_was_added_just_now_is_found() -> None:
    pages = Pages("m:latest")
    async with scripted(Llama()) as llama, scripted(pages) as other, opened(llama.url, other.url) as upstreams:
        pages.digests["new:latest"] = "d2"
        assert (await upstreams.pick("new", CHAT, [])).name == other.url
        pages.digests["newer:latest"] = "d3"
        assert await upstreams.identify("NEWER", CHAT, []) is not None


async def test_of_two_servers_the_idle_one_is_picked() -> None:
    async with scripted(Llama()) as one, scripted(Llama()) as two, opened(one.url, two.url) as upstreams:
        first = await upstreams.send((await upstreams.pick("a", CHAT, [])), CALL)
        assert (await upstreams.pick("a", CHAT, [])).name == two.url
        second = await upstreams.send((await upstreams.pick("a", CHAT, [])), CALL)
        await first.aclose()
        assert (await upstreams.pick("a", CHAT, [])).name == one.url
        assert await second.read(10) == b"ok"
        await second.aclose()


async def test_a_server_that_refuses_is_passed_over_for_a_while() -> None:
    async with scripted(Llama()) as one, scripted(Llama()) as two, opened(one.url, two.url) as upstreams:
        await one.stop()
        with pytest.raises(UpstreamRefused):
            await upstreams.send((await upstreams.pick("a", CHAT, [])), CALL)
        assert (await upstreams.pick("a", CHAT, [])).name == two.url
        assert upstreams.up() == {one.url: False, two.url: True}
        busy = await upstreams.send((await upstreams.pick("a", CHAT, [])), CALL)
        assert (await upstreams.pick("a", CHAT, [])).name == two.url
        await busy.aclose()


async def test_the_only_server_is_tried_again_however_often_it_refused() -> None:
    async with scripted(Llama()) as server, opened(server.url) as upstreams:
        await server.stop()
        for _ in range(3):
            with pytest.raises(UpstreamRefused):
                await upstreams.send((await upstreams.pick("a", CHAT, [])), CALL)
        await server.start()
        assert await answer(upstreams, (await upstreams.pick("a", CHAT, []))) == b"ok"


async def test_usual_places_are_looked_at() -> None:
    async with scripted(Llama()) as llama, scripted(no_model_server) as web, scripted(ollama) as other:
        usual = {"vLLM": web.url, "Ollama": other.url, "LM Studio": free_url(), "llama.cpp": llama.url}
        async with opened(usual=usual) as upstreams:
            assert [target.name for target in upstreams.targets] == [other.url, llama.url]


async def test_nobody_there() -> None:
    url = free_url()
    async with opened(usual={"llama.cpp": url}) as upstreams:
        assert upstreams.targets == ()
        with pytest.raises(UpstreamRefused, match="No model server was found") as refused:
            await upstreams.pick("a", CHAT, [])
        assert url in refused.value.message
        assert upstreams.ready()[0] is False
        assert upstreams.identity("a", CHAT) is None
        assert await upstreams.models([]) == {"object": "list", "data": []}


async def test_a_silent_server_does_not_hold_the_start_up() -> None:
    async with scripted(nothing) as server, asyncio.timeout(WAIT_SECONDS), opened(server.url) as upstreams:
        assert upstreams.ready() == (False, f"no model server answers: {server.url} (no answer yet)")
        assert (await upstreams.pick("a", CHAT, [])).name == server.url


async def test_a_server_that_loads_its_model_is_not_taken_for_another_kind() -> None:
    llama = Llama()
    llama.loading = True
    async with scripted(llama) as server, opened(server.url) as upstreams:
        assert upstreams.ready()[0] is False
        llama.loading = False
        await upstreams.models([])
        assert upstreams.ready()[0] is True
        assert (await upstreams.pick("a", CHAT, [])).kind.name == "llama.cpp"


async def test_the_upstreams_key_is_shown_when_it_is_asked() -> None:
    async with scripted(Llama()) as server, opened(server.url, key="sk-1"):
        assert {tuple(visit.header(b"authorization")) for visit in server.visits} == {(b"Bearer sk-1",)}


async def test_a_swapped_model_is_another_and_swapped_back_the_same() -> None:
    llama = Llama()
    async with scripted(llama) as server, opened(server.url) as upstreams:
        before, epoch = upstreams.identity("a", CHAT), upstreams.epoch
        await upstreams.models([])
        assert (upstreams.identity("a", CHAT), upstreams.epoch) == (before, epoch)
        llama.path = "/models/b.gguf"
        await upstreams.models([])
        assert upstreams.identity("a", CHAT) != before
        assert upstreams.epoch > epoch
        llama.path = "/models/a.gguf"
        await upstreams.models([])
        assert upstreams.identity("a", CHAT) == before


async def test_another_kind_of_server_in_the_same_place() -> None:
    async with scripted(Llama()) as server, opened(server.url) as upstreams:
        epoch = upstreams.epoch
        server.handler = ollama
        await upstreams.models([])
        assert (await upstreams.pick("m", CHAT, [])).kind.name == "ollama"
        assert upstreams.epoch > epoch


async def test_names_that_mean_the_same_model_have_one_identity() -> None:
    async with scripted(Llama()) as llama, scripted(ollama) as other, opened(llama.url, other.url) as upstreams:
        assert upstreams.identity("m", CHAT) == upstreams.identity("m:latest", CHAT) != upstreams.identity("a", CHAT)
        assert upstreams.identity("whatever", CHAT) is None
    async with scripted(Llama()) as llama, opened(llama.url) as upstreams:
        assert upstreams.identity("a", CHAT) == upstreams.identity("whatever", CHAT) is not None


async def test_servers_that_differ_are_their_models_identity_together() -> None:
    one, two = Llama(), Llama()
    async with scripted(one) as first, scripted(two) as second, opened(first.url, second.url) as upstreams:
        same = upstreams.identity("a", CHAT)
        two.path = "/models/b.gguf"
        await upstreams.models([])
        differing = upstreams.identity("a", CHAT)
        one.path, two.path = two.path, one.path
        await upstreams.models([])
        assert upstreams.identity("a", CHAT) == differing != same


async def test_a_model_server_restarted_with_another_model_is_noticed_before_its_answer_is_kept() -> None:
    llama = Llama()
    async with scripted(llama) as server, opened(server.url) as upstreams:
        target, identity = (await upstreams.pick("a", CHAT, [])), upstreams.identity("a", CHAT)
        await answer(upstreams, target)
        assert await upstreams.confirm(origin(target, identity), [])
        await server.stop()
        llama.path = "/models/b.gguf"
        await server.start()
        assert upstreams.identity("a", CHAT) == identity
        await answer(upstreams, target)
        assert not await upstreams.confirm(origin(target, identity), [])
        assert await upstreams.confirm(origin(target, upstreams.identity("a", CHAT)), [])


async def test_a_model_made_anew_is_noticed_before_an_answer_is_kept_on_a_kept_connection_too() -> None:
    pages = Pages("m:latest")
    async with scripted(pages) as server, opened(server.url) as upstreams:
        target, before = await upstreams.pick("m", CHAT, []), upstreams.identity("m", CHAT)
        await answer(upstreams, target)
        assert await upstreams.confirm(origin(target, before, "m"), []) == before
        connections = server.connections
        pages.digests["m:latest"] = "other"
        await answer(upstreams, target)
        assert await upstreams.confirm(origin(target, before, "m"), []) is None
        assert server.connections == connections
        made = origin(target, before, "m")
        pages.digests["m:latest"] = "d"
        await upstreams.models([])
        assert await upstreams.confirm(origin(target, before, "m"), []) == before
        assert await upstreams.confirm(made, []) is None, "another model was seen in between"


async def test_answers_that_end_together_are_confirmed_by_one_question() -> None:
    async with scripted(Pages("m:latest")) as server, opened(server.url) as upstreams:
        target, identity = await upstreams.pick("m", CHAT, []), upstreams.identity("m", CHAT)
        asked = len(server.visits)
        ended = [origin(target, identity, "m") for _ in range(50)]
        assert set(await asyncio.gather(*(upstreams.confirm(each, []) for each in ended))) == {identity}
        assert len(server.visits) == asked + 4, "version, tags, what is loaded, list"


async def test_who_tells_names_only_is_asked_after_a_new_connection_only() -> None:
    async def generic(visit: Visit) -> None:
        known = visit.path == "/v1/models"
        await visit.json({"data": [{"id": "a"}]} if known else {}, "200 OK" if known else "404 Not Found")

    async with scripted(generic) as server, opened(server.url) as upstreams:
        target, identity = await upstreams.pick("a", CHAT, []), upstreams.identity("a", CHAT)
        assert identity == "a"
        await answer(upstreams, target)
        assert upstreams.confirmed(origin(target, identity))


async def test_a_hit_rests_on_a_reading_after_what_may_have_changed_a_model() -> None:
    pages = Pages("m:latest")
    async with scripted(pages) as server, opened(server.url) as upstreams:
        before, epoch = upstreams.identity("m", CHAT), upstreams.current_epoch()
        assert epoch >= 0
        pages.digests["m:latest"] = "other"
        assert await upstreams.identify("m", CHAT, []) == before, "nobody knows, and it is young enough"
        upstreams.doubt(await upstreams.pick("m", CHAT, []))
        assert upstreams.identity("m", CHAT) is None
        assert upstreams.current_epoch() == -1
        assert await upstreams.identify("m", CHAT, []) not in (before, None)
        assert upstreams.current_epoch() > epoch


async def test_a_server_that_does_not_tell_in_time_is_not_relied_on_and_not_waited_for_twice() -> None:
    pages = Pages("m:latest")
    wait = 1.0
    async with scripted(pages) as server, opened(server.url, wait=wait) as upstreams:
        server.handler = nothing
        upstreams.doubt(await upstreams.pick("m", CHAT, []))
        async with asyncio.timeout(WAIT_SECONDS):
            assert await upstreams.identify("m", CHAT, []) is None
            began = monotonic()
            assert await upstreams.identify("m", CHAT, []) is None
            assert monotonic() - began < wait


async def test_a_context_that_is_told_makes_an_identity_more_precise_and_another_one_another() -> None:
    pages = Pages("m:latest", "other:latest")
    async with scripted(pages) as server, opened(server.url) as upstreams:
        target, unloaded = await upstreams.pick("m", CHAT, []), upstreams.identity("m", CHAT)
        pages.contexts["m:latest"] = 4096
        loaded = await upstreams.confirm(origin(target, unloaded, "m"), [])
        assert loaded not in (unloaded, None)
        pages.contexts.clear()
        await upstreams.models([])
        assert upstreams.identity("m", CHAT) == loaded, "unloaded, it is loaded the same way again"
        pages.contexts["m:latest"] = 2048
        assert await upstreams.confirm(origin(target, loaded, "m"), []) is None
        assert upstreams.identity("m", CHAT) not in (loaded, unloaded)


async def test_what_was_told_of_the_context_does_not_outlive_the_server_that_told_it() -> None:
    pages = Pages("m:latest")
    pages.contexts["m:latest"] = 4096
    async with scripted(pages) as server, opened(server.url) as upstreams:
        target, loaded = await upstreams.pick("m", CHAT, []), upstreams.identity("m", CHAT)
        await server.stop()
        with pytest.raises(UpstreamRefused):
            await answer(upstreams, target)
        assert upstreams.identity("m", CHAT) == loaded, "what is known stands while it is down"
        pages.contexts.clear()
        await server.start()
        await upstreams.models([])
        assert upstreams.identity("m", CHAT) not in (loaded, None)


class Guarded:
    """A server that lets in who shows its key."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def __call__(self, visit: Visit) -> None:
        if visit.header(b"authorization") == [b"Bearer right"]:
            await self.handler(visit)
        else:
            await visit.json({"error": {"message": "Invalid API Key"}}, "401 Unauthorized")


RIGHT, WRONG = [(b"authorization", b"Bearer right")], [(b"authorization", b"Bearer wrong")]


async def test_who_asks_for_a_key_is_read_with_that_of_a_caller() -> None:
    async with scripted(Guarded(Llama())) as server, opened(server.url) as upstreams:
        assert upstreams.ready()[0], "it answers"
        assert await upstreams.identify("a", CHAT, []) is None
        assert await upstreams.identify("a", CHAT, WRONG) is None
        async with asyncio.timeout(WAIT_SECONDS):
            # nobody waits for a reading for longer than a second, which is short on a machine that stands still
            while (identity := await upstreams.identify("a", CHAT, RIGHT)) is None:
                pass
        target = await upstreams.pick("a", CHAT, RIGHT)
        assert target.kind.name == "llama.cpp"
        assert await upstreams.confirm(origin(target, identity), WRONG) is None
        assert await upstreams.confirm(origin(target, identity), RIGHT) == identity
        assert upstreams.identity("a", CHAT) == identity, "a wrong key takes nothing away"


async def test_who_is_gone_confirms_nothing() -> None:
    async def once(visit: Visit) -> None:
        await visit.reply(b"ok", headers=b"connection: close\r\n")

    async with scripted(Llama()) as server, opened(server.url) as upstreams:
        target, identity = (await upstreams.pick("a", CHAT, [])), upstreams.identity("a", CHAT)
        await server.stop()
        server.handler = once
        await server.start()
        await answer(upstreams, target)
        await server.stop()
        assert not await upstreams.confirm(origin(target, identity), [])


async def test_after_a_failure_the_first_success_brings_a_new_reading() -> None:
    llama = Llama()
    async with scripted(llama) as server, opened(server.url) as upstreams:
        before = upstreams.identity("a", CHAT)
        await server.stop()
        with pytest.raises(UpstreamRefused):
            await answer(upstreams, (await upstreams.pick("a", CHAT, [])))
        llama.path = "/models/b.gguf"
        await server.start()
        await answer(upstreams, (await upstreams.pick("a", CHAT, [])))
        await server.visited("/v1/models", times=2)
        await upstreams.models([])
        assert upstreams.identity("a", CHAT) != before


async def test_the_list_is_the_union_and_the_first_servers_entry_counts() -> None:
    async def third(visit: Visit) -> None:
        known = visit.path == "/v1/models"
        document = {"data": [{"id": "a", "owned_by": "third"}, {"id": "c"}]} if known else {}
        await visit.json(document, "200 OK" if known else "404 Not Found")

    async with (
        scripted(Llama()) as one,
        scripted(ollama) as two,
        scripted(third) as three,
        opened(one.url, two.url, three.url) as upstreams,
    ):
        document = await upstreams.models([])
        assert [(model["id"], model["owned_by"]) for model in document["data"]] == [
            ("a", ""),
            ("m:latest", ""),
            ("c", ""),
        ]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[IdentityStore]:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as database:
        yield IdentityStore(database)


async def test_what_was_known_outlives_server_and_proxy(store: IdentityStore) -> None:
    async with scripted(Llama()) as llama, scripted(ollama) as other:
        urls = llama.url, other.url
        async with opened(*urls, store=store) as upstreams:
            known = {name: upstreams.identity(name, CHAT) for name in ("a", "anything", "m")}
    async with opened(*urls, store=store) as upstreams:
        assert upstreams.ready()[0] is False
        assert {name: upstreams.identity(name, CHAT) for name in known} == known
        assert [target.kind.name for target in upstreams.targets] == ["llama.cpp", "ollama"]
        assert [model["id"] for model in (await upstreams.models([]))["data"]] == ["a", "m:latest"]
        with pytest.raises(UpstreamRefused, match=llama.url):
            await upstreams.send((await upstreams.pick("a", CHAT, [])), CALL)


async def test_a_model_that_is_gone_is_forgotten(store: IdentityStore) -> None:
    llama = Llama("a")
    async with scripted(llama) as server:
        async with opened(server.url, store=store):
            pass
        llama.model = "b"
        async with opened(server.url, store=store):
            pass
        (seen,) = (await store.load()).values()
        assert set(seen.identities) == {"b", ""}


async def test_the_usual_place_where_something_was_last_is_remembered(store: IdentityStore) -> None:
    async with scripted(Llama()) as llama:
        usual = {"llama.cpp": llama.url, "Ollama": free_url()}
        async with opened(usual=usual, store=store) as upstreams:
            known = upstreams.identity("a", CHAT)
    async with opened(usual=usual, store=store) as upstreams:
        assert [target.name for target in upstreams.targets] == [llama.url]
        assert upstreams.identity("a", CHAT) == known


async def test_a_broken_database_does_not_matter_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "x.db"
    file.write_bytes(b"this is no database" * 1000)
    async with open_database(f"sqlite+aiosqlite:///{file}") as database, scripted(Llama()) as server:
        async with opened(server.url, store=IdentityStore(database)) as upstreams:
            assert len(upstreams.identity("a", CHAT) or "") == 64
        # by the database itself
        assert [record.name for record in caplog.records] == ["llmproxy.database.outage"]


async def test_a_call_that_failed_is_no_longer_in_flight() -> None:
    async def broken(visit: Visit) -> None:
        visit.close()

    async with scripted(Llama()) as one, scripted(Llama()) as two, opened(one.url, two.url) as upstreams:
        one.handler = broken
        target = await upstreams.pick("a", CHAT, [])
        with pytest.raises(Exception, match="No proper answer"):
            await upstreams.send(target, CALL)
        assert (await upstreams.pick("a", CHAT, [])).name == one.url
