"""The description of the API: a valid OpenAPI document that names every route and every parameter there is."""

import re
from typing import Any

import httpx
import orjson
import pytest
import schemathesis

from llmproxy.admin.openapi.description import describe
from llmproxy.admin.openapi.operations import OPERATIONS
from llmproxy.app.routes import route_table
from llmproxy.config.load import load
from llmproxy.wire.endpoints import ENDPOINTS
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

GROUPS = route_table(load({}, {}).settings).groups
DOCUMENT = orjson.loads(orjson.dumps(describe(GROUPS)))
#: pages for people, and the description itself
PAGES = ("/", "/ui", "/docs", "/openapi.json")
#: what reads its query strictly
STRICT = (
    "/admin/cache/entries",
    "/admin/cache/groups",
    "/api/history",
    "/api/performance",
    "/api/sessions",
    "/api/sessions/{id}",
    "/api/users",
    "/api/users/{id}",
)


def described() -> dict[str, Any]:
    """The operations by method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
    }


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_every_route_of_ours_is_in_it_by_hand() -> None:
    """What is made from a docstring alone has no parameters and no form of its answer."""
    assert {name for name in described() if name not in OPERATIONS} == {f"POST {row.paths[0]}" for row in ENDPOINTS}
    assert set(OPERATIONS) <= set(described())


def test_every_route_is_in_it() -> None:
    routes = {
        (method, re.sub(r"{(\w+):\w+}", r"{\1}", route.path))
        for group in GROUPS
        for route in group.routes
        for method in (route.methods or {"GET"}) - {"HEAD"}
    }
    missing = [
        path
        for method, path in routes
        if not {f"{method} {path}", f"{method} /v1{path}"} & set(described())
        and path not in PAGES
        and not path.startswith(("/ui/", "/docs/"))
    ]
    assert missing == []


def test_every_operation_has_an_id_of_its_own_and_all_parameters_of_its_path() -> None:
    ids = [operation["operationId"] for operation in described().values()]
    assert len(ids) == len(set(ids))
    for name, operation in described().items():
        in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", name)), name


def test_every_schema_that_is_named_is_there_and_every_one_there_is_named() -> None:
    text = orjson.dumps(DOCUMENT).decode()
    assert set(re.findall("#/components/schemas/(\\w+)", text)) == set(DOCUMENT["components"]["schemas"])


@pytest.mark.parametrize("path", STRICT)
async def test_its_parameters_are_those_that_the_proxy_takes(http: httpx.AsyncClient, path: str) -> None:
    """What refuses an unknown parameter says which ones there are."""
    answer = await http.get(path.replace("{id}", "0"), params={"nobody_reads_this": "1"})
    assert answer.status_code == 400, answer.text
    _, _, taken = answer.json()["error"]["message"].rstrip(".").partition("there are ")
    in_query = {each["name"] for each in described()[f"GET {path}"]["parameters"] if each["in"] == "query"}
    assert in_query == set(filter(None, taken.split(", ")))


async def test_it_is_served_to_everybody(http: httpx.AsyncClient, front: Proxy) -> None:
    answer = await http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT
    again = await http.get("/openapi.json", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


async def test_the_model_servers_own_is_to_be_had(http: httpx.AsyncClient) -> None:
    for path in ("/openapi.json", "/docs"):
        answer = await http.get(f"{path}?upstream")
        assert answer.json()["target"] == f"{path}?upstream"


def test_jobs_that_are_off_are_not_in_it(upstream: ScriptedUpstream) -> None:
    paths = describe(route_table(load({"jobs": False}, {}).settings).groups)["paths"]
    assert not [path for path in paths if path.startswith(("/api/tasks", "/v1/files", "/v1/batches"))]
