"""``llmproxy history``, ``tail`` and ``explain`` of what the history has, against the running program."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.cli.program import Program, start
from tests.scripted import CHAT, marker
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS


@dataclass
class Session:
    """A client of ``front`` whose requests are all of one session."""

    name: str
    http: httpx.Client

    def ask(self, prompt: str, status: int = 200, **headers: str) -> str:
        """The request's id."""
        answer = self.http.post(CHAT.path, json=CHAT.request(prompt), headers=headers)
        assert answer.status_code == status
        return str(answer.headers["x-request-id"])


@pytest.fixture
def session(front: Proxy) -> Iterator[Session]:
    name = marker()
    headers = {"x-llmproxy-session": name, "x-llmproxy-user": "ann"}
    with httpx.Client(base_url=front.url, trust_env=False, timeout=WAIT_SECONDS, headers=headers) as http:
        yield Session(name, http)


def test_requests_are_listed_as_the_log_has_them(llmproxy: Program, front: Proxy, session: Session) -> None:
    prompt = marker()
    ids = [session.ask(prompt) for _ in range(2)]
    where = ("--session", session.name, "--url", front.url)
    shown = llmproxy("history", *where)
    assert shown.code == 0, shown.err
    head, hit, miss = shown.out.splitlines()
    assert "endpoint" in head
    assert (hit.split()[0], miss.split()[0]) == ("HIT", "MISS")
    for line, id in ((hit, ids[1]), (miss, ids[0])):
        assert " ann " in line
        assert f" {id[-5:]} " in line
        assert line[head.index("question") :].startswith(prompt[:6])
    assert llmproxy("history", "--cache", "hit", *where).out.splitlines() == [head, hit]
    assert llmproxy("history", "--until", "1h", *where).out == "no requests\n"
    assert len(llmproxy("history", "--since", "1h", *where).out.splitlines()) == 3
    assert llmproxy("history", "-q", prompt, "--limit", "1", *where).out.splitlines()[:2] == [head, hit]
    found = json.loads(llmproxy("history", "--json", *where).out)
    assert [row["request_id"] for row in found["data"]] == ids[::-1]


def test_the_slowest_come_first(llmproxy: Program, front: Proxy, session: Session) -> None:
    for _ in range(3):
        session.ask(marker())
    slow = llmproxy("history", "--slow", "--json", "--session", session.name, "--url", front.url)
    times = [row["total_seconds"] for row in json.loads(slow.out)["data"]]
    assert len(times) == 3
    assert times == sorted(times, reverse=True)


def test_a_filter_that_is_none_is_one_line(llmproxy: Program, front: Proxy) -> None:
    shown = llmproxy("history", "--cache", "wild", "--url", front.url)
    assert (shown.code, shown.out, len(shown.err.splitlines())) == (1, "", 1)
    assert "'cache' must be one of" in shown.err


def test_what_comes_is_followed(front: Proxy, session: Session, tmp_path: Path) -> None:
    earlier = [session.ask(marker()) for _ in range(3)]
    arguments = ["tail", "--url", front.url, "--session", session.name, "-n", "1"]
    with start("llmproxy", arguments, tmp_path) as tail:
        assert tail.stdout is not None
        assert "question" in tail.stdout.readline()
        assert f" {earlier[-1][-5:]} " in tail.stdout.readline()
        prompt = marker()
        later = [session.ask(prompt), session.ask(prompt)]
        for id, outcome in zip(later, ("MISS", "HIT"), strict=True):
            line = tail.stdout.readline()
            assert line.startswith(outcome)
            assert f" {id[-5:]} " in line
        tail.send_signal(signal.SIGINT)
        out, err = tail.communicate(timeout=WAIT_SECONDS)
    assert (tail.returncode, out, err) == (130, "", "")


def test_the_last_miss_is_explained_without_an_id(llmproxy: Program, front: Proxy, session: Session) -> None:
    prompt = marker()
    miss = session.ask(prompt)
    session.ask(prompt)
    shown = llmproxy("explain", "--url", front.url)
    assert shown.out.splitlines()[0].startswith(f"{miss}: MISS"), shown.err


def test_an_ids_end_is_enough(llmproxy: Program, front: Proxy, session: Session) -> None:
    id = session.ask(marker())
    shown = llmproxy("explain", id[-5:], "--url", front.url)
    assert shown.out.splitlines()[0].startswith(f"{id}: MISS"), shown.err
