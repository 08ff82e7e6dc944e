"""Every error and every kind of success, read back through each major line of the official client."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.clients.environments import python_with
from tests.compat.clients import VERSIONS, Job, run
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.scripted_upstream.answers import vector
from tests.server import Proxy

#: status -> the class that the SDKs document for it
CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    405: "APIStatusError",
    408: "APIStatusError",
    409: "ConflictError",
    413: "APIStatusError",
    415: "APIStatusError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    501: "InternalServerError",
    502: "InternalServerError",
    503: "InternalServerError",
    504: "InternalServerError",
}
STREAMS = ("chat_stream", "chat_helper", "completions_stream", "responses_stream", "responses_helper")
SUCCESSES = ("chat_plain", "responses_plain", *STREAMS)
WITHOUT = ("chat_stream", "completions_stream")
BREAKS = ("cut", "reset", "clean-end", "half-frame", "router-text", "error-frame")


def jobs() -> list[Job]:
    """What every client is asked to do. Each job has a prompt of its own, so that none meets another's entry."""
    made = [Job(call, call, f"{marker()} [script:words=9]") for call in SUCCESSES]
    made += [Job(call, call) for call in ("models", "unknown_model", "passed_through", "wrong_method")]
    made.append(Job("embeddings", "embeddings", "first"))
    made += [Job(call, call, f"{marker()} [script:words=9]") for call in ("batch", "background", "stored_chat")]
    for status in CLASSES:
        for call in ("chat_plain", "chat_stream"):
            made.append(Job(f"{call} {status}", call, f"{marker()} [script:status={status}]"))
    made += [
        Job(f"{call} {how}", call, f"{marker()} [script:{how} after=6 words=9]") for call in STREAMS for how in BREAKS
    ]
    made += [
        Job(f"{call} without an end", call, f"{marker()} [script:no-terminal after=6 words=9]") for call in WITHOUT
    ]
    made.append(Job("plain drop", "chat_plain", f"{marker()} [script:drop]"))
    made.append(Job("foreign page", "chat_plain", headers={"Origin": "https://evil.example"}))
    made.append(Job("only cached", "chat_plain", marker(), headers={"Cache-Control": "only-if-cached"}))
    made.append(Job("too large", "chat_plain", "x" * 200_000))
    image = f"{marker()} [script:status=500 shape=llamacpp-image]"
    made.append(Job("deterministic", "chat_plain", image, retries=2))
    return made


@dataclass(frozen=True, slots=True)
class Report:
    """What one client made of all its jobs."""

    prompts: dict[str, str]
    outcomes: dict[str, Any]

    def __getitem__(self, name: str) -> dict[str, Any]:
        outcome = self.outcomes[name]
        assert isinstance(outcome, dict)
        return outcome

    def result(self, name: str) -> Any:
        assert self[name]["error"] is None, self[name]
        return self[name]["result"]


@pytest.fixture(scope="module")
def small(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy whose body limit is easily passed."""
    with Proxy(
        upstream.url, database=tmp_path_factory.mktemp("compat") / "llmproxy.db", max_body_bytes=100_000
    ) as proxy:
        yield proxy


@pytest.fixture(scope="module", params=VERSIONS)
def report(request: pytest.FixtureRequest, small: Proxy) -> Report:
    cache = request.config.cache
    assert cache is not None
    python = python_with(f"openai=={request.param}", cache.mkdir("openai-clients"))
    wanted = jobs()
    return Report({job.name: job.prompt for job in wanted}, run(python, f"{small.url}/v1", wanted))


@pytest.mark.parametrize("call", SUCCESSES)
def test_answers_are_read(report: Report, upstream: ScriptedUpstream, call: str) -> None:
    (visit,) = upstream.visits(report.prompts[call])
    result = report.result(call)
    assert result["text"] == f"answer-{visit.number} zero one two three four naïve 日本 🙂 e\u0301"
    assert result.get("status", "completed") == "completed"
    assert result.get("last", "response.completed") == "response.completed"
    assert result.get("finish", "stop") == "stop"
    assert result.get("request_id", "present")


def test_embeddings_are_read(report: Report) -> None:
    """The SDKs ask for base64 by themselves and decode it."""
    assert report.result("embeddings") == {"vectors": [vector("first"), vector("second")], "indexes": [0, 1]}


def test_models_are_read(report: Report) -> None:
    assert report.result("models") == {"names": ["scripted"], "one": "scripted"}
    missing = report["unknown_model"]
    assert (missing["error"], missing["status"], missing["code"]) == ("NotFoundError", 404, "model_not_found")


def test_other_calls_pass_through(report: Report) -> None:
    result = report.result("passed_through")
    assert result["methods"] == ["GET", "POST", "DELETE"]
    assert result["targets"][0] == "/v1/uploads?include%5B%5D=a&include%5B%5D=b"
    assert result["targets"][1:] == ["/v1/uploads/upload_1/cancel", "/v1/uploads/upload_1"]
    assert result["upload"] > 0


def test_files_and_batches(report: Report) -> None:
    result = report.result("batch")
    assert result.pop("text").startswith("answer-")
    assert result == {
        "made": "validating",
        "status": "completed",
        "counts": [1, 1, 0],
        "metadata": {"who": "compat"},
        "listed": True,
        "files": True,
        "deleted": True,
    }


def test_responses_of_the_background(report: Report) -> None:
    result = report.result("background")
    assert result.pop("text").startswith("answer-")
    numbers = result.pop("numbers")
    assert numbers == list(range(len(numbers)))
    assert result == {"last": "response.completed", "status": "completed", "again": True, "items": ["user"]}


def test_stored_chat_completions(report: Report) -> None:
    result = report.result("stored_chat")
    assert result == {"same": True, "listed": True, "messages": True, "deleted": True}


@pytest.mark.parametrize("call", ["chat_plain", "chat_stream"])
@pytest.mark.parametrize("status", CLASSES)
def test_a_status_of_the_upstream_is_its_documented_class(report: Report, call: str, status: int) -> None:
    outcome = report[f"{call} {status}"]
    assert outcome["error"] == CLASSES[status]
    assert outcome["status"] == status
    assert f"refused with {status}" in outcome["message"]
    assert outcome["type"] == "invalid_request_error"
    assert outcome["code"] == "some_code"
    assert outcome["param"] == "messages"
    assert outcome["request_id"]


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("call", STREAMS)
def test_a_stream_that_breaks_raises(report: Report, upstream: ScriptedUpstream, call: str, how: str) -> None:
    outcome = report[f"{call} {how}"]
    if outcome["error"] is None:
        assert call == "responses_stream", outcome
        assert outcome["result"]["failed"], "an event that reports the failure is the least"
    else:
        assert outcome["error"] in {"APIError", "InternalServerError"}, outcome
        assert outcome["message"]


@pytest.mark.parametrize("call", WITHOUT)
def test_a_stream_without_its_terminal_event_is_whole(report: Report, call: str) -> None:
    report.result(f"{call} without an end")


@pytest.mark.parametrize(
    ("name", "expected", "status"),
    [
        ("plain drop", "InternalServerError", 502),
        ("foreign page", "PermissionDeniedError", 403),
        ("only cached", "InternalServerError", 504),
        ("too large", "APIStatusError", 413),
        ("wrong_method", "APIStatusError", 405),
    ],
)
def test_the_proxys_own_errors(report: Report, name: str, expected: str, status: int) -> None:
    outcome = report[name]
    assert (outcome["error"], outcome["status"]) == (expected, status)
    assert outcome["message"]
    assert outcome["type"]
    assert outcome["request_id"]


def test_an_error_that_will_not_go_away_is_asked_for_once(report: Report, upstream: ScriptedUpstream) -> None:
    outcome = report["deterministic"]
    assert outcome["error"] == "InternalServerError"
    assert "image input is not supported" in outcome["message"]
    assert len(upstream.visits(report.prompts["deterministic"])) == 1
