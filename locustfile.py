"""Load for a running proxy: ``make load HOST=http://127.0.0.1:4141``, or ``locust`` for its page. See docs/load.md."""

import json
import logging
import random
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import locust.stats
from gevent import GreenletExit, Timeout  # type: ignore[import-untyped]
from locust import FastHttpUser, LoadTestShape, between, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, FastResponse
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from llmproxy.cli.bench import MAX_TOKENS, Popular, chat, question
from llmproxy.cli.options import CommandFailed
from llmproxy.jobs.model import JobStatus
from tests.load.judge import ACCEPTED, FIRST_TOKEN, HOT_SET, LIMITS, LONG_TAIL, TASK, Judge, tell_when_stopped
from tests.load.offer import Offer

#: numbers of questions from here on: the hot set's, the long tail's, those of streams, and those asked but once
HOT, TAIL, STREAMED, ONCE = 0, 10_000, 20_000, 1_000_000
PROMPTS_OF_A_BATCH, TEXTS_OF_AN_EMBEDDING = 8, 4
#: between two looks at a task, in seconds; and how long its cancelling may take
FIRST_PAUSE, LONGEST_PAUSE, CANCELLING = 0.1, 2.0, 2.0
#: callers have so many seconds to get the answers that they wait for when their time is over
STOP_TIMEOUT = 30
#: share of the run's time that is over -> share of the users from then on
STEPS = ((0.0, 0.25), (0.2, 0.5), (0.4, 1.0), (0.8, 0.25))


def _two_digits(milliseconds: float) -> float:
    return float(f"{milliseconds:.2g}")


# locust has every logger say all it does
logging.getLogger("httpx").setLevel(logging.WARNING)
# locust keeps whole milliseconds otherwise, and a hit takes about one
locust.stats.bucket_response_time = _two_digits  # type: ignore[assignment]


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust's own, here and below
def _options(parser: LocustArgumentParser) -> None:
    parser.set_defaults(num_users=10, spawn_rate=10, run_time="1m", stop_timeout=STOP_TIMEOUT, web_host="127.0.0.1")
    add = parser.add_argument
    add("--model", env_var="LOAD_MODEL", help="model to ask [the first that answers]")
    add("--api-key", env_var="OPENAI_API_KEY", is_secret=True, help="key of the proxy, where it asks for one")
    add("--hot", type=_number, default=20, env_var="LOAD_HOT", help="questions in the hot set [20]")
    add("--tail", type=_number, default=1000, env_var="LOAD_TAIL", help="questions in the long tail [1000]")
    for limit in LIMITS:
        variable = "LOAD_" + limit.option.upper().replace("-", "_")
        add(f"--{limit.option}", type=float, default=limit.default, env_var=variable, help=limit.help)


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


class Caller(FastHttpUser):
    """One of those who ask. The number of a task is how often it is done, beside the others."""

    host = "http://127.0.0.1:4141"
    wait_time = between(0.05, 0.15)
    network_timeout = 300.0

    def on_start(self) -> None:
        options = self.environment.parsed_options
        assert options is not None, "locust was started as a program"
        self._offer, self._headers = Offer(**options.offer), options.headers
        self._hot, self._tail = (Popular(count, random.Random()) for count in (options.hot, options.tail))
        self._patience = options.max_p95
        self.tasks = [each for each in self.tasks if each not in _left_out(self._offer)]

    @tag("single")
    @task(2)
    def single(self) -> None:
        """A question that nobody asked before."""
        self._ask("single", "/v1/chat/completions", self._question(_once()))

    @tag("hot")
    @task(8)
    def hot_set(self) -> None:
        """One of few questions."""
        self._ask(HOT_SET, "/v1/chat/completions", self._question(HOT + self._hot.pick()))

    @tag("tail")
    @task(4)
    def long_tail(self) -> None:
        """One of many questions, most of them seldom."""
        self._ask(LONG_TAIL, "/v1/chat/completions", self._question(TAIL + self._tail.pick()))

    @tag("stream")
    @task(3)
    def stream(self) -> None:
        """One of many, as a stream. The time to its first token is a metric of its own."""
        body = self._question(STREAMED + self._tail.pick(), stream=True)
        # compressed frames could not be told apart
        headers = self._headers | {"accept-encoding": "identity"}
        began, first, ended = time.perf_counter(), None, False
        with (
            self._waiting("stream"),
            self.client.post(
                "/v1/chat/completions", json=body, headers=headers, name="stream", stream=True, catch_response=True
            ) as answer,
        ):
            name = answer.request_meta["name"] = _name("stream", answer)
            if answer.status_code != 200:
                return
            try:
                for line in iter(lambda: answer.stream.readline(b"\n"), b""):
                    if first is None and _says(line):
                        first = time.perf_counter() - began
                    ended = ended or line.startswith(b"data: [DONE]")
            except FAILURE_EXCEPTIONS as error:
                answer.failure(error)
            else:
                if not ended:
                    answer.failure("the stream broke off")
            answer.request_meta["response_time"] = (time.perf_counter() - began) * 1e3
        if first is not None:
            self._note(FIRST_TOKEN, name, first)

    @tag("background")
    @task(1)
    def background(self) -> None:
        """A question for later, and looks at it until it is answered."""
        self._order("background", "/api/completions", {"prompt": question(_once()), "background": True})

    @tag("batch")
    @task(1)
    def batch(self) -> None:
        """Several of them."""
        prompts = [question(_once()) for _ in range(PROMPTS_OF_A_BATCH)]
        self._order("batch", "/api/completions/batch", {"prompts": prompts})

    @tag("embeddings")
    @task(2)
    def embeddings(self) -> None:
        """Some of few texts: known ones are not sent to the model again."""
        texts = [question(HOT + self._hot.pick()) for _ in range(TEXTS_OF_AN_EMBEDDING)]
        self._ask("embeddings", "/v1/embeddings", {"model": self._offer.embedding, "input": texts})

    def _question(self, number: int, **more: Any) -> dict[str, Any]:
        return chat(self._offer.model, number, MAX_TOKENS, **more)

    def _order(self, name: str, path: str, wanted: dict[str, Any]) -> None:
        options = {"model": self._offer.model, "max_tokens": MAX_TOKENS, "temperature": 0}
        accepted = self._ask(name, path, options | wanted, ACCEPTED)
        if not accepted:
            return
        where = f"/api/tasks/{accepted['task_id']}"
        try:
            self._follow(name, f"{where}?limit=1")
        except GreenletExit:
            # nobody wants its answers, and the model server is not to work on them when the run is over
            with Timeout(CANCELLING, False):
                self.client.delete(where, headers=self._headers, name="task: cancelled")
            raise

    def _follow(self, name: str, path: str) -> None:
        """Looks at a task until it is over."""
        pause = FIRST_PAUSE
        while shown := self._ask("task", path):
            status = JobStatus(shown["status"])
            if status.over:
                flaw = None if status is JobStatus.COMPLETED else CommandFailed(f"the task is {status}")
                self._note(TASK, f"{name}: finished", shown["finished_at"] - shown["created_at"], flaw)
                return
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _ask(self, name: str, path: str, body: dict[str, Any] | None = None, word: str = "") -> dict[str, Any]:
        """The document of an answer; empty where it is an error, which is counted. A body is posted."""
        method = "GET" if body is None else "POST"
        with (
            self._waiting(name),
            self.client.request(
                method, path, json=body, headers=self._headers, name=name, catch_response=True
            ) as answer,
        ):
            answer.request_meta["name"] = f"{name}: {word}" if word else _name(name, answer)
            if not 200 <= answer.status_code < 300:
                return {}
            try:
                document: dict[str, Any] = answer.json()
            except ValueError:
                answer.failure("the answer is not JSON")
            else:
                return document
        return {}

    @contextmanager
    def _waiting(self, name: str) -> Iterator[None]:
        """Counts what has no answer when the caller is stopped, as failed, if an answer was to be there by then.

        Else a run would know nothing of those whom a model server keeps waiting for ever.
        """
        began = time.perf_counter()
        try:
            yield
        except GreenletExit:
            waited = time.perf_counter() - began
            if waited > self._patience:
                self._note("POST", f"{name}: unanswered", waited, CommandFailed("no answer before the end"))
            raise

    def _note(self, method: str, name: str, seconds: float, exception: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type=method,
            name=name,
            response_time=seconds * 1e3,
            response_length=0,
            exception=exception,
            context={},
        )


class Mixed(LoadTestShape):
    """A few users at first, all of them for a while, and few again. Reads ``--users`` and ``--run-time``."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None, "locust sets it"
        options = self.runner.environment.parsed_options
        assert options is not None, "locust was started as a program"
        over = self.get_run_time() / options.run_time  # type: ignore[no-untyped-call]
        if over >= 1:
            if isinstance(self.runner, MasterRunner):
                # it would leave before its workers have told what became of those who still wait
                self.runner.stop()
            return None
        users = max(1, round(options.num_users * [share for since, share in STEPS if over >= since][-1]))
        return users, max(options.spawn_rate, users)


@events.init.add_listener  # type: ignore[untyped-decorator]
def _judged(environment: Environment, **_: object) -> None:
    """One process judges, for locust's workers, too, where there are any."""
    if isinstance(environment.runner, WorkerRunner):
        tell_when_stopped(environment, environment.runner)
    else:
        assert Caller.host is not None, "it has one"
        judge = Judge(environment, Caller.host, _check_tags)
        if environment.parsed_options is not None and environment.parsed_options.headless:
            try:
                judge.look()
            except CommandFailed as error:
                sys.exit(f"locust: {error}")


def _check_tags(environment: Environment, offer: Offer) -> None:
    """Raises ``CommandFailed`` where nothing is left to be done."""
    options = environment.parsed_options
    assert options is not None, "locust was started as a program"
    wanted, unwanted = set(options.tags or ()), set(options.exclude_tags or ())
    offered: list[set[str]] = [
        getattr(each, "locust_tag_set", set()) for each in Caller.tasks if each not in _left_out(offer)
    ]
    if not any((not wanted or tags & wanted) and not tags & unwanted for tags in offered):
        raise CommandFailed("this proxy offers nothing of what the tags leave")


def _name(name: str, answer: FastResponse) -> str:
    """Hits and misses are kept apart by their names."""
    cache = answer.headers.get("x-cache") if answer.headers is not None else None
    return f"{name}: {str(cache).lower()}" if cache else name


def _says(line: bytes) -> bool:
    """Whether a line of a stream holds the first of what the model says: more than its role."""
    try:
        choices = json.loads(line.removeprefix(b"data: "))["choices"]
        return any(value for name, value in choices[0]["delta"].items() if name != "role")
    except (ValueError, LookupError, TypeError, AttributeError):
        return False


def _once() -> int:
    return ONCE + random.randrange(10**9)


def _left_out(offer: Offer) -> list[object]:
    """The tasks that this proxy is not asked to do."""
    jobs = [] if offer.jobs else [Caller.background, Caller.batch]
    return [*jobs, *([] if offer.embedding else [Caller.embeddings])]
