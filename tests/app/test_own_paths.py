"""Unknown paths below ``/admin`` and in our part of ``/api`` are our own 404; all others go to the model server."""

import httpx
import pytest

from tests.scripted import marker


@pytest.mark.parametrize(
    "path",
    [
        "/admin",
        "/admin/",
        "/admin/no/such",
        "/admin/cache",
        "/api/cache",
        "/api/cache/no-such",
        "/api/completions/no-such",
        "/api/health/no-such",
        "/api/performance/no-such",
        "/api/tasks/a/b",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path_of_ours_never_reaches_the_model_server(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await http.request(method, path, content=marker())
    assert answer.status_code == 404, answer.text
    assert answer.json()["error"]["message"] == f"There is nothing at {path}."
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", ["/administration", "/api/tasksets", "/api/show", "/api", "/apis"])
async def test_its_neighbours_are_the_model_servers(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path, params={"who": marker()})
    assert answer.status_code == 200
    assert answer.json()["target"].startswith(path)
