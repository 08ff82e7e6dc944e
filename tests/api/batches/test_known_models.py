"""Which models a batch may name: what no server can know is refused, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llmproxy.upstream.upstreams import Upstreams
from tests.upstream.configured import configured
from tests.upstream.scripted import Visit, scripted


class Listing:
    """A server that serves what it lists. ``props`` makes it a llama.cpp, which takes any name if it has one model."""

    def __init__(self, *models: str, props: bool = False) -> None:
        self.models = list(models)
        self._props = props

    async def __call__(self, visit: Visit) -> None:
        if visit.path == "/v1/models":
            await visit.json({"data": [{"id": model} for model in self.models]})
        elif visit.path == "/props" and self._props:
            await visit.json({"default_generation_settings": {"params": {}}, "model_path": "/a.gguf"})
        else:
            await visit.json({}, "404 Not Found")


@asynccontextmanager
async def opened(*urls: str) -> AsyncIterator[Upstreams]:
    upstreams = Upstreams(configured(upstream=urls, identity_seconds=1000), usual={})
    await upstreams.open()
    try:
        yield upstreams
    finally:
        await upstreams.close()


async def test_only_what_is_listed() -> None:
    async with scripted(Listing("a", "b")) as server, opened(server.url) as upstreams:
        assert await upstreams.may_serve("b")
        assert not await upstreams.may_serve("c")


async def test_a_model_that_was_added_a_moment_ago() -> None:
    listing = Listing("a")
    async with scripted(listing) as server, opened(server.url) as upstreams:
        listing.models.append("b")
        assert await upstreams.may_serve("b")


async def test_any_name_where_a_server_takes_any() -> None:
    async with (
        scripted(Listing("a")) as closed,
        scripted(Listing("b", props=True)) as free,
        opened(closed.url, free.url) as upstreams,
    ):
        assert await upstreams.may_serve("c")


async def test_any_name_while_a_server_does_not_answer() -> None:
    async with scripted(Listing("a")) as server, opened(server.url, "http://127.0.0.1:9") as upstreams:
        assert await upstreams.may_serve("c")


async def test_any_name_where_nothing_is_listed() -> None:
    async with scripted(Listing()) as server, opened(server.url) as upstreams:
        assert await upstreams.may_serve("c")
