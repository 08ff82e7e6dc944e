"""The URLs of tasks."""

from starlette.routing import Route

from llmproxy.jobs.tasks import api
from llmproxy.jobs.tasks.completion_api import many_prompts, one_prompt
from llmproxy.jobs.tasks.events import events


def routes() -> list[Route]:
    return [
        Route("/api/completions", one_prompt, methods=["POST"], name="task-completions"),
        Route("/api/completions/batch", many_prompts, methods=["POST"], name="task-batch"),
        Route("/api/tasks", api.tasks, methods=["GET"], name="tasks"),
        Route("/api/tasks/{id}", api.task, methods=["GET"], name="task"),
        Route("/api/tasks/{id}", api.cancel, methods=["DELETE"], name="task-cancel"),
        Route("/api/tasks/{id}/events", events, methods=["GET"], name="task-events"),
    ]
