"""``llmproxy batch run`` against the running program: what is printed, what is written, what a second run does."""

import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.program import Outcome, Program
from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy, environment
from tests.timeouts import WAIT_SECONDS

Run = Callable[..., Outcome]

REFUSED = "[script:status=400]"
STATE = Path("out.jsonl.llmproxy-batch")


def line(number: int, prompt: str, **more: Any) -> str:
    body = {"model": "scripted", "messages": [{"role": "user", "content": prompt}]}
    return json.dumps({"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body} | more)


def write(prompts: Sequence[str], path: Path = Path("in.jsonl")) -> None:
    path.write_text("".join(line(number, prompt) + "\n" for number, prompt in enumerate(prompts)))


def ids(path: str) -> set[str]:
    """The ``custom_id`` of each line."""
    return {json.loads(line)["custom_id"] for line in Path(path).read_text().splitlines()}


def facts(outcome: Outcome) -> dict[str, str]:
    """The summary."""
    return dict(line.split(maxsplit=1) for line in outcome.out.splitlines())


def left_behind() -> set[str]:
    return {path.name for path in Path().iterdir()}


@pytest.fixture
def run(llmproxy: Program, front: Proxy) -> Run:
    """Runs ``in.jsonl`` to ``out.jsonl`` in the program's folder."""
    return lambda *more: llmproxy("batch", "run", "in.jsonl", "-o", "out.jsonl", "--url", front.url, *more)


def test_answers_are_written_and_summed_up(run: Run) -> None:
    prompts = [marker() for _ in range(3)]
    write([*prompts, prompts[0]])
    outcome = run()
    assert (outcome.code, "Traceback" in outcome.err) == (0, False)
    assert ids("out.jsonl") == {"r0", "r1", "r2", "r3"}
    assert left_behind() == {"in.jsonl", "out.jsonl"}
    summed = facts(outcome)
    assert summed["batch"].endswith(", completed")
    assert (summed["completed"], summed["failed"]) == ("4 of 4", "0")
    assert summed["tokens"] == "28 of prompts, 24 of completions"
    assert summed["took"].endswith(" s")
    again = run()
    assert facts(again)["hits"] == "4"
    assert facts(again)["batch"] != summed["batch"]


def test_where_nobody_looks_progress_is_lines(run: Run) -> None:
    write([marker()])
    said = run().err.splitlines()
    assert said[0].startswith("sending in.jsonl (0.0 MB)")
    assert any(line.startswith("batch_") and "completed, 1 of 1" in line for line in said)
    assert all(line.isprintable() for line in said)


def test_failed_lines_are_written_beside_the_output_and_are_1(run: Run) -> None:
    write([marker(), marker() + REFUSED])
    outcome = run()
    assert outcome.code == 1
    assert outcome.err.endswith("llmproxy: 1 of 2 lines failed; the reasons are in out.errors.jsonl\n")
    assert (ids("out.jsonl"), ids("out.errors.jsonl")) == ({"r0"}, {"r1"})
    write([marker()])
    assert run().code == 0
    assert left_behind() == {"in.jsonl", "out.jsonl"}


def test_failed_lines_go_where_they_are_wanted(run: Run) -> None:
    write([marker() + REFUSED])
    Path("out.jsonl").write_text("of an earlier run\n")
    assert run("--errors", "bad.jsonl").code == 1
    assert (Path("out.jsonl").read_text(), ids("bad.jsonl")) == ("", {"r0"})


def test_what_is_wrong_with_the_input_is_said_line_by_line(run: Run) -> None:
    Path("in.jsonl").write_text(line(0, "a") + "\nnonsense\n" + line(0, "b", url="/v1/embeddings") + "\n")
    Path("out.jsonl").write_text("of an earlier run\n")
    outcome = run()
    assert outcome.code == 1
    assert "\nline 2: This line is not parseable as valid JSON.\n" in outcome.err
    assert "\nline 3: " in outcome.err
    assert outcome.err.splitlines()[-1].endswith("nothing was run; in.jsonl has to be corrected")
    assert Path("out.jsonl").read_text() == "of an earlier run\n"
    write([marker()])
    assert run().code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "in.jsonl is empty"), ("nonsense\n", "in.jsonl, line 1"), ('{"url": 1}\n', "in.jsonl, line 1")],
)
def test_an_input_that_is_none_is_not_sent(run: Run, text: str, words: str) -> None:
    Path("in.jsonl").write_text(text)
    outcome = run()
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert words in outcome.err
    assert left_behind() == {"in.jsonl"}


@pytest.mark.parametrize(
    "files", [["in.jsonl", "-o", "./in.jsonl"], ["in.jsonl", "-o", "o", "--errors", "o"], ["gone.jsonl", "-o", "o"]]
)
def test_files_that_cannot_be_are_wrong_usage(llmproxy: Program, files: list[str]) -> None:
    write(["x"])
    assert llmproxy("batch", "run", *files, "--url", "http://127.0.0.1:1").code == 2
    assert left_behind() == {"in.jsonl"}


def test_nobody_there_says_what_to_start_and_can_be_gone_on_with(llmproxy: Program, front: Proxy) -> None:
    write([marker()])
    outcome = llmproxy("batch", "run", "in.jsonl", "-o", "out.jsonl", "--url", "http://127.0.0.1:1")
    assert outcome.code == 1
    assert "llmproxy serve" in outcome.err
    assert llmproxy("batch", "run", "in.jsonl", "-o", "out.jsonl", "--url", f"{front.url}/v1/").code == 0
    assert left_behind() == {"in.jsonl", "out.jsonl"}


def test_a_refusal_leaves_nothing_to_go_on_with(
    llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = proxy(upstream.url, api_keys="alice:a-key")
    write([marker()])
    command = ("batch", "run", "in.jsonl", "-o", "out.jsonl", "--url", server.url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    outcome = llmproxy(*command)
    assert (outcome.code, "answered 401" in outcome.err) == (1, True)
    assert not STATE.exists()
    assert llmproxy(*command, "--api-key", "a-key").code == 0
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    assert facts(llmproxy(*command))["hits"] == "1"


class Interrupted:
    """The program as a process of its own, interrupted while its only line waits at a gate."""

    def __init__(self, folder: Path, url: str, upstream: ScriptedUpstream) -> None:
        self.prompt = marker()
        gate = upstream.gate()
        self.open = gate.open
        write([f"{self.prompt}[script:gate={gate.name}]"], folder / "in.jsonl")
        with subprocess.Popen(
            [sys.executable, "-m", "llmproxy", "batch", "run", "in.jsonl", "-o", "out.jsonl", "--url", url],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            try:
                assert child.stderr is not None
                self.id = next(line for line in child.stderr if line.startswith("batch_")).partition(":")[0]
                upstream.journal.wait(self.prompt)
                child.send_signal(signal.SIGINT)
                self.out, self.err = child.communicate(timeout=WAIT_SECONDS)
                self.code = child.returncode
            finally:
                child.kill()


def test_ctrl_c_leaves_the_batch_and_the_same_command_goes_on(
    run: Run, tmp_path: Path, front: Proxy, upstream: ScriptedUpstream
) -> None:
    first = Interrupted(tmp_path, front.url, upstream)
    assert (first.code, first.out) == (130, "")
    assert first.err.splitlines()[-1] == f"{first.id} goes on; the same command goes on with it"
    known = json.loads(STATE.read_text())
    assert (known["batch"], known["url"]) == (first.id, front.url)
    first.open()
    outcome = run()
    assert outcome.code == 0
    assert facts(outcome)["batch"] == f"{first.id}, completed"
    assert len(upstream.visits(first.prompt)) == 1
    assert left_behind() == {"in.jsonl", "out.jsonl"}


def test_another_input_is_another_batch(run: Run, tmp_path: Path, front: Proxy, upstream: ScriptedUpstream) -> None:
    first = Interrupted(tmp_path, front.url, upstream)
    write([marker()])
    outcome = run()
    assert outcome.err.startswith(f"{first.id} was for other requests")
    assert (outcome.code, facts(outcome)["batch"] == f"{first.id}, completed") == (0, False)
    first.open()


def test_a_run_that_died_after_it_began_makes_no_second_batch(run: Run, front: Proxy) -> None:
    write([marker()])
    first = run()
    id = facts(first)["batch"].partition(",")[0]
    # as it was before the batch's id came back
    with httpx.Client(base_url=front.url, trust_env=False, timeout=60) as client:
        begun = len(client.get("/v1/batches?limit=100").json()["data"])
        STATE.write_text(json.dumps({"url": front.url, "sha256": digest(), "key": "k1", "batch": ""}))
        again = [facts(run())["batch"]]
        STATE.write_text(json.dumps({"url": front.url, "sha256": digest(), "key": "k1", "batch": ""}))
        again.append(facts(run())["batch"])
        assert len(client.get("/v1/batches?limit=100").json()["data"]) == begun + 1
    assert again[0] == again[1] != f"{id}, completed"


def digest() -> str:
    return hashlib.sha256(Path("in.jsonl").read_bytes()).hexdigest()


def test_a_batch_that_is_gone_is_said_once_and_then_begun_anew(run: Run, front: Proxy) -> None:
    write([marker()])
    STATE.write_text(json.dumps({"url": front.url, "sha256": digest(), "key": marker(), "batch": "batch_gone"}))
    outcome = run()
    assert (outcome.code, "answered 404" in outcome.err) == (1, True)
    assert run().code == 0


def test_a_batch_that_was_cancelled_meanwhile_is_told_of(
    run: Run, tmp_path: Path, front: Proxy, upstream: ScriptedUpstream
) -> None:
    first = Interrupted(tmp_path, front.url, upstream)
    with httpx.Client(base_url=front.url, trust_env=False, timeout=60) as client:
        client.post(f"/v1/batches/{first.id}/cancel").raise_for_status()
    outcome = run()
    assert outcome.code == 1
    assert f"{first.id} is cancelled" in outcome.err
    assert ids("out.errors.jsonl") == {"r0"}
    assert not STATE.exists()


def test_a_state_file_of_somebody_else_is_not_guessed_at(run: Run) -> None:
    write(["x"])
    STATE.write_text("{}")
    outcome = run()
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "delete it to begin anew" in outcome.err


def test_a_proxy_that_goes_away_is_waited_for(llmproxy: Program) -> None:
    """It drops a connection, has no database, and breaks off in the middle of a file, each once."""
    write([marker()])
    batch = {"id": "batch_1", "created_at": 1, "completed_at": 9, "output_file_id": "file-out"}
    batch |= {"request_counts": {"total": 1, "completed": 1, "failed": 0}}
    running, over = json.dumps(batch | {"status": "in_progress"}), json.dumps(batch | {"status": "completed"})
    answers: dict[str, list[Any]] = {
        "POST /v1/files": [(200, '{"id": "file-in"}')],
        "POST /v1/batches": [(200, running)],
        "GET /v1/batches/batch_1": [None, (200, running), (503, '{"error": {"message": "no database"}}'), (200, over)],
        "GET /v1/files/file-out/content": [(200, '{"half of', 100), (200, '{"custom_id": "r0"}')],
    }
    with answering(answers) as url:
        outcome = llmproxy("batch", "run", "in.jsonl", "-o", "out.jsonl", "--url", url)
    assert outcome.code == 0
    assert all(not rest for rest in answers.values())
    assert Path("out.jsonl").read_text() == '{"custom_id": "r0"}'
    assert left_behind() == {"in.jsonl", "out.jsonl"}
    assert "no database" in outcome.err
    assert outcome.err.count("no answer from") == 2
    assert (facts(outcome)["hits"], facts(outcome)["took"]) == ("–", "8 s")


@contextmanager
def answering(answers: dict[str, list[Any]]) -> Iterator[str]:
    """A server that gives each request its next answer: status, body and, for a lie, its length; None hangs up."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            answer = answers[f"{self.command} {self.path}"].pop(0)
            self.close_connection = True
            if answer is None:
                return
            status, body, *length = answer
            self.send_response(status)
            self.send_header("content-length", str(length[0] if length else len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(60)
