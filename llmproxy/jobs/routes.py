"""Every URL of the background-job extension."""

from starlette.routing import Route

from llmproxy.jobs.batches.routes import routes as batch_routes
from llmproxy.jobs.chats.routes import routes as chat_routes
from llmproxy.jobs.files.routes import routes as file_routes
from llmproxy.jobs.responses.routes import routes as response_routes
from llmproxy.jobs.tasks.routes import routes as task_routes


def routes() -> list[Route]:
    """The routes of all faces."""
    return [*file_routes(), *batch_routes(), *response_routes(), *chat_routes(), *task_routes()]
