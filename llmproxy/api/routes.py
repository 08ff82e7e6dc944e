"""Every URL of the callers' API to files, batches, Responses, stored chat completions and tasks.

``POST`` on the bare paths of chat completions and Responses is not here: their endpoints stand ahead of the router.
"""

from starlette.routing import Match, Route
from starlette.types import Scope

from llmproxy.api import batches, chat, files, responses, tasks
from llmproxy.api.http import PassThroughRoute
from llmproxy.api.tasks_events import events


def routes() -> list[Route]:
    """The routes of all, with ``/v1`` and without; tasks are below ``/api``."""
    return [
        *(route for prefix in ("/v1", "") for route in _files(f"{prefix}/files")),
        *(route for prefix in ("/v1", "") for route in _batches(f"{prefix}/batches")),
        *(route for prefix in ("/v1", "") for route in _responses(f"{prefix}/responses")),
        *(route for prefix in ("/v1", "") for route in _chats(f"{prefix}/chat/completions")),
        Route("/api/completions", tasks.one_prompt, methods=["POST"], name="task-completions"),
        Route("/api/completions/batch", tasks.many_prompts, methods=["POST"], name="task-batch"),
        Route("/api/tasks", tasks.tasks, methods=["GET"], name="tasks"),
        Route("/api/tasks/{id}", tasks.task, methods=["GET"], name="task"),
        Route("/api/tasks/{id}", tasks.cancel, methods=["DELETE"], name="task-cancel"),
        Route("/api/tasks/{id}/events", events, methods=["GET"], name="task-events"),
    ]


def _files(base: str) -> list[Route]:
    return [
        Route(base, files.UploadFile(), methods=["POST"], name="files-create"),
        Route(base, files.listing, methods=["GET"], name="files-list"),
        Route(f"{base}/{{id}}", files.retrieve, methods=["GET"], name="files-retrieve"),
        Route(f"{base}/{{id}}", files.delete, methods=["DELETE"], name="files-delete"),
        Route(f"{base}/{{id}}/content", files.content, methods=["GET"], name="files-content"),
    ]


def _batches(base: str) -> list[Route]:
    return [
        Route(base, batches.create, methods=["POST"], name="batch-create"),
        Route(base, batches.batches, methods=["GET"], name="batches"),
        Route(f"{base}/{{id}}", batches.batch, methods=["GET"], name="batch"),
        Route(f"{base}/{{id}}/cancel", batches.cancel, methods=["POST"], name="batch-cancel"),
    ]


def _responses(base: str) -> list[Route]:
    return [
        PassThroughRoute(f"{base}/{{id}}", responses.Retrieve(), methods=["GET"], name="response"),
        PassThroughRoute(f"{base}/{{id}}", responses.delete, methods=["DELETE"], name="response-delete"),
        PassThroughRoute(f"{base}/{{id}}/cancel", responses.cancel, methods=["POST"], name="response-cancel"),
        PassThroughRoute(
            f"{base}/{{id}}/input_items", responses.input_items, methods=["GET"], name="response-input-items"
        ),
    ]


class ChatRoute(PassThroughRoute):
    """A ``POST`` to what is not an id is the upstream's, too: llama.cpp counts tokens at
    ``/v1/chat/completions/input_tokens``."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        ours = match is Match.FULL and (scope["method"] != "POST" or found["path_params"]["id"].startswith(chat.PREFIX))
        return (match, found) if ours else (Match.NONE, {})


def _chats(base: str) -> list[Route]:
    return [
        ChatRoute(base, chat.listing, methods=["GET"], name="chat-completions"),
        ChatRoute(f"{base}/{{id}}", chat.retrieve, methods=["GET"], name="chat-completion"),
        ChatRoute(f"{base}/{{id}}", chat.Update(), methods=["POST"], name="chat-completion-update"),
        ChatRoute(f"{base}/{{id}}", chat.delete, methods=["DELETE"], name="chat-completion-delete"),
        ChatRoute(f"{base}/{{id}}/messages", chat.messages, methods=["GET"], name="chat-completion-messages"),
    ]
