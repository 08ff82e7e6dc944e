"""Requests made from the description, hundreds of them: none is answered with a 500, and answers have their forms."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from llmproxy.admin.openapi.description import describe
from llmproxy.app.routes import route_table
from llmproxy.config.load import load
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

DESCRIPTION = orjson.loads(orjson.dumps(describe(route_table(load({}, {}).settings).groups)))
SCHEMA = schemathesis.openapi.from_dict(DESCRIPTION)
OPERATIONS = {each.ok().label: each.ok() for each in SCHEMA.get_all_operations() if isinstance(each, Ok)}
PROFILE = settings(
    max_examples=8,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
#: what has come of a request that the proxy made to another server, whose form is that server's
RELAYED = ("cached endpoints",)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy with something in its history, its cache and its queue."""
    with (
        ScriptedUpstream() as upstream,
        Proxy(upstream.url, database=tmp_path_factory.mktemp("described") / "llmproxy.db") as proxy,
    ):
        yield proxy
    assert "Traceback" not in proxy.log, proxy.log


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.fixture(scope="module")
def ids(server: Proxy) -> dict[str, str]:
    """The id of one of each thing, by the path of which it is part."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        names = {"x-llmproxy-session": "s1", "x-llmproxy-user": "ann", "x-llmproxy-tags": "t"}
        chat = client.chat.completions.with_raw_response.create(
            model="scripted", messages=[{"role": "user", "content": marker()}], store=True, extra_headers=names
        )
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "scripted"}}
        file = client.files.create(file=("in.jsonl", orjson.dumps(line)), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        response = client.responses.create(model="scripted", input=marker())
    with httpx.Client(base_url=server.url, trust_env=False, timeout=WAIT_SECONDS) as http:
        task = http.post("/api/completions/batch", json={"prompts": [marker()], "model": "scripted"}).json()
        # entries and the totals of users are written behind the answers
        until(lambda: http.get("/api/users/ann").is_success and http.get("/admin/cache/entries").json()["data"] != [])
        entries = http.get("/admin/cache/entries").json()["data"]
    request_id = chat.headers["x-request-id"]
    return {
        "/admin/cache/entries/{key}": entries[0]["key"],
        "/admin/jobs/{id}": task["task_id"],
        "/api/history/{request_id}": request_id,
        "/api/history/{request_id}/explain": request_id,
        "/api/sessions/{id}": "s1",
        "/api/users/{id}": "ann",
        "/api/tasks/{id}": task["task_id"],
        "/v1/batches/{id}": batch.id,
        "/v1/chat/completions/{id}": chat.parse().id,
        "/v1/chat/completions/{id}/messages": chat.parse().id,
        "/v1/files/{id}": file.id,
        "/v1/files/{id}/content": file.id,
        "/v1/responses/{id}": response.id,
        "/v1/responses/{id}/input_items": response.id,
        "/v1/models/{id}": "scripted",
    }


#: a model server that is none of Ollama's has no such lists, and the last one never ends while its task is open
ELSEWHERE = ("/api/tags", "/api/ps", "/api/tasks/{id}/events")


@pytest.mark.parametrize(
    "path", [path for path, methods in DESCRIPTION["paths"].items() if "get" in methods and path not in ELSEWHERE]
)
def test_what_is_there_has_the_form_that_is_described(server: Proxy, ids: dict[str, str], path: str) -> None:
    operation = OPERATIONS[f"GET {path}"]
    parameters = {name: ids[path] for name in re.findall(r"{(\w+)}", path)}  # noqa: C420
    case = operation.Case(path_parameters=parameters)
    answer = case.call(base_url=server.url, timeout=60)
    assert answer.status_code == 200, answer.text
    case.validate_response(answer, checks=[content_type_conformance, response_schema_conformance])


def forbids(operation: Any) -> bool:
    """Whether there are bodies, or values in a query, that it does not take."""
    raw = DESCRIPTION["paths"][operation.path][operation.method]
    in_query = [each["schema"] for each in raw["parameters"] if each["in"] == "query"]
    return "requestBody" in raw or any(schema != {"type": "string"} for schema in in_query)


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_is_answered_with_a_fault(server: Proxy, label: str) -> None:
    operation = OPERATIONS[label]
    checks: list[Any] = [not_a_server_error]
    if not set(operation.tags or ()) & set(RELAYED):
        checks += [content_type_conformance, response_schema_conformance]

    @PROFILE
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        case.call_and_validate(base_url=server.url, checks=checks, timeout=60)

    ask()


@pytest.mark.parametrize("label", [label for label, operation in OPERATIONS.items() if forbids(operation)])
def test_nor_is_one_that_the_description_forbids(server: Proxy, label: str) -> None:
    @PROFILE
    @given(case=OPERATIONS[label].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(case: Any) -> None:
        case.call_and_validate(base_url=server.url, checks=[not_a_server_error], timeout=60)

    ask()
