"""``/docs``: the description of the API for people, in a real browser and without a network."""

import hashlib
import json
import re
from functools import partial

from playwright.sync_api import Request, expect

from llmproxy.admin.openapi.pages import FOLDER
from tests.server import Proxy
from tests.ui.conftest import MakeTab


def test_the_viewer_is_the_file_of_its_package() -> None:
    (row,) = json.loads((FOLDER / "manifest.json").read_text())
    assert hashlib.sha256((FOLDER / row["file"]).read_bytes()).hexdigest() == row["sha256"]
    assert row["license"] == "MIT"
    named = {row["file"], *row["license_files"], "manifest.json", "docs.html", "docs.js"}
    assert named == {path.name for path in FOLDER.iterdir()}


def test_its_addresses_are_relative() -> None:
    for name in ("docs.html", "docs.js"):
        text = (FOLDER / name).read_text()
        assert re.findall(r'(?:src|href)="/|https?://', text) == []


def note(urls: list[str], request: Request) -> None:
    urls.append(request.url)


def test_an_operation_is_read_and_tried(front: Proxy, tab: MakeTab) -> None:
    for path in ("/docs", "/docs/"):
        reader = tab(front)
        requested: list[str] = []
        reader.page.on("request", partial(note, requested))
        reader.page.goto(f"{front.url}{path}#get-/api/cache/stats")
        expect(reader.page.get_by_role("heading", name="What the cache holds and what it saved")).to_be_visible()
        with reader.page.expect_response("**/api/cache/stats") as answer:
            reader.page.get_by_role("button", name="TRY").first.click()
        assert answer.value.status == 200
        assert [url for url in requested if not url.startswith(f"{front.url}/")] == []


def test_what_is_not_there_is_our_own_404(front: Proxy) -> None:
    with front.line() as line:
        answer = line.ask("GET", "/docs/no-such")
    assert answer.status == 404
    assert json.loads(answer.body)["error"]["code"] == "not_found"
