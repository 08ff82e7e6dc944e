"""Jobs: progress, errors by row, cancelling, retrying, and the output of a batch."""

import json
from pathlib import Path

from playwright.sync_api import expect

from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.ui.asking import post
from tests.ui.conftest import MakeTab

REFUSED = "[script:status=400]"


def batch_of(proxy: Proxy, prompts: list[str]) -> str:
    body = json.loads(post(proxy, "/api/completions/batch", {"prompts": prompts, "model": "scripted"}).body)
    id: str = body["task_id"]
    return id


def test_a_job_is_cancelled(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    gate = upstream.gate()
    server = proxy(upstream.url)
    job = batch_of(server, [marker(), f"{marker()} [script:gate={gate.name}]"])
    shown = tab(server)
    shown.open("jobs")
    expect(shown.page.get_by_role("row", name="1 of 2")).to_contain_text("running")
    shown.page.get_by_role("row", name="1 of 2").get_by_role("link").click()
    shown.see(job)
    expect(shown.page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    shown.picture("job-running")
    shown.button("Cancel").click()
    expect(shown.page.locator(".title")).to_contain_text("cancelled")
    expect(shown.button("Cancel")).to_have_count(0)
    gate.open()


def test_errors_are_shown_by_row_and_tried_again(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    job = batch_of(server, [marker(), marker() + "[script:status=400 times=1]"])
    shown = tab(server)
    shown.open(f"jobs/{job}")
    shown.see("1 of 2, 1 failed")
    expect(shown.page.get_by_role("table", name="Calls that failed")).to_contain_text("400")
    shown.picture("job-failed")
    shown.button("Retry").click()
    shown.see("2 of 2")
    expect(shown.page.get_by_role("table", name="Calls that failed")).to_have_count(0)


def test_results_are_downloaded(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab, tmp_path: Path) -> None:
    server = proxy(upstream.url)
    job = batch_of(server, [marker(), marker()])
    shown = tab(server)
    shown.open(f"jobs/{job}")
    with shown.page.expect_download() as download:
        shown.button("Download results").click()
    download.value.save_as(tmp_path / "results.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == [0, 1]
    assert all("zero one" in row["response"] for row in rows)


def test_the_output_of_a_batch_is_downloaded(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab, tmp_path: Path
) -> None:
    server = proxy(upstream.url)
    call = {"custom_id": "first", "method": "POST", "url": "/v1/chat/completions"}
    body = {"model": "scripted", "messages": [{"role": "user", "content": marker()}]}
    form = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        + json.dumps({**call, "body": body}).encode()
        + b"\r\n--b--\r\n"
    )
    with server.line() as line:
        heard = line.ask("POST", "/v1/files", [("content-type", "multipart/form-data; boundary=b")], form)
    file = json.loads(heard.body)["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    id = json.loads(post(server, "/v1/batches", asked).body)["id"]
    shown = tab(server)
    shown.open(f"jobs/{id}")
    with shown.page.expect_download() as download:
        shown.button("Download output").click()
    download.value.save_as(tmp_path / "out.jsonl")
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert row["custom_id"] == "first"
