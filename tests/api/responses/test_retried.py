"""Background Responses that an operator has had tried again: what an earlier run left is not told as the new one's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai

from tests.api.responses.asking import client_of, over
from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy


def failed_once(client: openai.OpenAI) -> str:
    """The id of a streamed Response that failed, and will not again."""
    prompt = f"{marker()} [script:status=500 times=1]"
    stream = client.responses.create(model="m", input=prompt, background=True, stream=True)
    events: list[Any] = list(stream)
    assert events[-1].type == "response.failed"
    return str(events[0].response.id)


@contextmanager
def begun_anew(upstream: ScriptedUpstream, worker: Proxy) -> Iterator[tuple[openai.OpenAI, str]]:
    """A client, and a Response that failed and waits for ``worker``, which is stopped."""
    with client_of(worker) as client:
        id = failed_once(client)
    worker.stop()
    with Proxy(upstream.url, database=worker.database, task_queue_workers=0) as face, client_of(face) as client:
        assert httpx.post(f"{face.url}/admin/jobs/{id}/retry", trust_env=False).status_code == 200
        yield client, id


def test_who_follows_is_told_the_end_of_the_new_run(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    worker = proxy(upstream.url, job_max_attempts=1)
    with begun_anew(upstream, worker) as (client, id):
        assert client.responses.retrieve(id).status == "in_progress"
        stream = iter(client.responses.retrieve(id, stream=True))
        events: list[Any] = [next(stream), next(stream)]
        worker.start()
        events += stream
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].type == "response.completed"
        assert events[-1].response == over(client, id)


def test_cancelled_then_it_is_cancelled_and_not_what_it_was(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    with begun_anew(upstream, proxy(upstream.url, job_max_attempts=1)) as (client, id):
        cancelled = client.responses.cancel(id)
        assert (cancelled.status, cancelled.error) == ("cancelled", None)
        *_, last = client.responses.retrieve(id, stream=True)
        assert last.type == "response.failed"
        assert last.response == cancelled
