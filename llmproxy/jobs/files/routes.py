"""The URLs of files, with ``/v1`` and without."""

from starlette.routing import Route

from llmproxy.jobs.files import api


def routes() -> list[Route]:
    made: list[Route] = []
    for base in ("/v1/files", "/files"):
        made += [
            Route(base, api.UploadFile(), methods=["POST"], name="files-create"),
            Route(base, api.listing, methods=["GET"], name="files-list"),
            Route(base + "/{id}", api.retrieve, methods=["GET"], name="files-retrieve"),
            Route(base + "/{id}", api.delete, methods=["DELETE"], name="files-delete"),
            Route(base + "/{id}/content", api.content, methods=["GET"], name="files-content"),
        ]
    return made
