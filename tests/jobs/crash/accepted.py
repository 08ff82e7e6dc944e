"""What a server accepted, so that it can be asked for after any number of crashes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import openai

from tests.api.batches.made import CHAT, Json, jsonl, read, request
from tests.server import Proxy

T = TypeVar("T")

#: how long what was accepted may take in the end, on a machine that does other things too
PATIENCE = 120.0
ENDED = frozenset({"completed", "failed", "cancelled", "expired", "incomplete"})


@dataclass
class Accepted:
    """The promises of a server: ids, and the prompts that they stand for."""

    batch: str = ""
    rows: list[str] = field(default_factory=list)
    #: ids of tasks and of Responses, each with its prompts
    tasks: dict[str, list[str]] = field(default_factory=dict)
    responses: dict[str, str] = field(default_factory=dict)

    @property
    def prompts(self) -> list[str]:
        return [
            *self.rows,
            *(prompt for prompts in self.tasks.values() for prompt in prompts),
            *self.responses.values(),
        ]


class Client:
    """Submits, and asks for what came of it, whatever the server's port is now."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def submit_batch(self, prompts: list[str]) -> str:
        """A batch with a line for each prompt."""
        lines = [request(f"row-{number}", prompt) for number, prompt in enumerate(prompts)]
        with self._openai() as client:
            file = client.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch")
            return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id

    def submit_task(self, prompts: list[str], key: str) -> str:
        """A background task; the same key is the same task."""
        with self._http() as http:
            body = {"prompts": prompts, "model": "scripted"}
            answer = http.post("/api/completions/batch", json=body, headers={"idempotency-key": key})
            assert answer.status_code == 202, answer.text
            return str(answer.json()["task_id"])

    def submit_response(self, prompt: str) -> str:
        """A background Response."""
        with self._openai() as client:
            return client.responses.create(model="scripted", input=prompt, background=True).id

    def batch_answers(self, id: str) -> dict[str, str]:
        """The answers in the output file by ``custom_id``, once the batch is over."""
        with self._openai() as client:
            batch = _until(lambda: client.batches.retrieve(id), lambda batch: batch.status in ENDED)
            assert (batch.status, batch.error_file_id) == ("completed", None), batch
            counts = batch.request_counts
            assert counts is not None
            assert batch.output_file_id is not None
            lines = read(client.files.content(batch.output_file_id).content)
            assert (counts.total, counts.completed, counts.failed) == (len(lines), len(lines), 0)
        assert {line["response"]["status_code"] for line in lines.values()} == {200}
        return {name: _said(line["response"]["body"]) for name, line in lines.items()}

    def task_answers(self, id: str) -> list[str]:
        """The answers of a task in the order of its prompts, once it is over."""
        with self._http() as http:
            task = _until(lambda: _task(http, id), lambda task: task["status"] in ENDED)
        assert task["status"] == "completed", task
        return [str(result["response"]) for result in task["results"]]

    def response_answer(self, id: str) -> str:
        """The answer of a Response, once it is over."""
        with self._openai() as client:
            response = _until(lambda: client.responses.retrieve(id), lambda response: response.status in ENDED)
        assert response.status == "completed", response
        return response.output_text

    def _openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self._proxy.url}/v1", api_key="none", max_retries=0, timeout=60)

    def _http(self) -> httpx.Client:
        return httpx.Client(base_url=self._proxy.url, timeout=60, trust_env=False)


def _task(http: httpx.Client, id: str) -> Json:
    answer = http.get(f"/api/tasks/{id}", params={"limit": 1000})
    assert answer.status_code == 200, answer.text
    document: Json = answer.json()
    return document


def _said(body: dict[str, Any]) -> str:
    return str(body["choices"][0]["message"]["content"])


def _until(look: Callable[[], T], holds: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + PATIENCE
    while not holds(found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {PATIENCE} s it is still {found}")
        time.sleep(0.05)
    return found
