"""The URLs of stored chat completions, with ``/v1`` and without."""

from starlette.routing import Match, Route
from starlette.types import Scope

from llmproxy.jobs.chats import api
from llmproxy.jobs.chats.chat_ids import PREFIX
from llmproxy.jobs.pass_through_route import PassThroughRoute


class _Ours(PassThroughRoute):
    """A ``POST`` to what is no id is the upstream's, too: llama.cpp counts tokens at
    ``/v1/chat/completions/input_tokens``."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        ours = match is Match.FULL and (scope["method"] != "POST" or found["path_params"]["id"].startswith(PREFIX))
        return (match, found) if ours else (Match.NONE, {})


def routes() -> list[Route]:
    """``POST`` on the bare path is ``endpoint.ChatsEndpoint``, which is mounted ahead of the router."""
    return [
        route
        for prefix in ("/v1/chat/completions", "/chat/completions")
        for route in (
            _Ours(prefix, api.listing, methods=["GET"], name="chat-completions"),
            _Ours(f"{prefix}/{{id}}", api.retrieve, methods=["GET"], name="chat-completion"),
            _Ours(f"{prefix}/{{id}}", api.Update(), methods=["POST"], name="chat-completion-update"),
            _Ours(f"{prefix}/{{id}}", api.delete, methods=["DELETE"], name="chat-completion-delete"),
            _Ours(f"{prefix}/{{id}}/messages", api.messages, methods=["GET"], name="chat-completion-messages"),
        )
    ]
