"""The URLs of batches, with and without ``/v1``."""

from starlette.routing import Route

from llmproxy.jobs.batches import api


def routes() -> list[Route]:
    return [
        route
        for prefix in ("/v1", "")
        for route in (
            Route(f"{prefix}/batches", api.create, methods=["POST"], name="batch-create"),
            Route(f"{prefix}/batches", api.batches, methods=["GET"], name="batches"),
            Route(f"{prefix}/batches/{{id}}", api.batch, methods=["GET"], name="batch"),
            Route(f"{prefix}/batches/{{id}}/cancel", api.cancel, methods=["POST"], name="batch-cancel"),
        )
    ]
