"""The application by itself: what it answers to those who are no HTTP requests, or come too early."""

from typing import Any

import pytest
from starlette.types import Message

from llmproxy.app import create_app


async def answers(scope: dict[str, Any], *received: Message) -> list[Message]:
    """All that the application sends."""
    sent: list[Message] = []
    waiting = iter(received)

    async def receive() -> Message:
        return next(waiting)

    async def send(message: Message) -> None:
        sent.append(message)

    await create_app()(scope, receive, send)
    return sent


async def test_a_websocket_is_closed_before_it_is_accepted() -> None:
    assert await answers({"type": "websocket"}, {"type": "websocket.connect"}) == [{"type": "websocket.close"}]


async def test_without_a_lifespan_there_is_no_answer() -> None:
    with pytest.raises(RuntimeError, match="lifespan"):
        await answers({"type": "http"})


async def test_settings_are_read_when_the_lifespan_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPROXY_REPLAY", "wild")
    (failed,) = await answers({"type": "lifespan"}, {"type": "lifespan.startup"})
    assert failed["type"] == "lifespan.startup.failed"
    assert failed["message"].startswith("llmproxy: replay = 'wild' (environment LLMPROXY_REPLAY): allowed is")
