"""The page's files: what they are, how they are served, and that they need nobody else."""

import hashlib
import json
import re
from pathlib import PurePosixPath

import pytest

from llmproxy.admin.ui.assets import FOLDER, INDEX, read
from tests.conftest import MakeProxy
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

VENDOR = FOLDER / "vendor"
OURS = sorted(path for path in FOLDER.rglob("*") if path.is_file() and VENDOR not in path.parents)


def test_vendored_files_are_those_of_their_packages() -> None:
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    for row in manifest:
        assert hashlib.sha256((VENDOR / row["file"]).read_bytes()).hexdigest() == row["sha256"], row["file"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", row["version"])
        assert row["license"] in ("MIT", "Apache-2.0")
    listed = {row["file"] for row in manifest} | {row["license_file"] for row in manifest} | {"manifest.json"}
    assert listed == {path.name for path in VENDOR.iterdir()}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_nothing_makes_markup_or_code_of_data(path: object) -> None:
    text = str(path) and FOLDER.joinpath(str(path)).read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert word not in text
    assert "javascript:" not in text


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_every_file_that_is_named_is_there(path: object) -> None:
    assets, file = read(), FOLDER.joinpath(str(path))
    text = file.read_text()
    for found in re.findall(r'from "(\.[^"]+)"', text):
        assert (file.parent / found).resolve().is_relative_to(FOLDER)
        assert (file.parent / found).is_file(), found
    for found in re.findall(r'(?:src|href)="(/ui/[^"#]+)"', text):
        assert str(PurePosixPath(found).relative_to("/ui")) in assets
    # the namespaces of XML are names, not addresses
    assert re.findall(r"https?://(?!www\.w3\.org/)[a-z0-9]", text) == []


def test_the_page_may_load_nothing_from_elsewhere(front: Proxy) -> None:
    with front.line() as line:
        heard = line.ask("GET", "/ui")
    policy = (heard.first("content-security-policy") or "").split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"} <= set(policy)
    assert {"img-src 'self' data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert heard.first("x-content-type-options") == "nosniff"
    assert heard.first("referrer-policy") == "no-referrer"
    assert heard.first("content-type") == "text/html; charset=utf-8"
    assert b"<script" in heard.body


def test_a_file_that_is_known_is_not_sent_again(front: Proxy) -> None:
    with front.line() as line:
        first = line.ask("GET", "/ui/app.js")
        tag = first.first("etag") or ""
        again = line.ask("GET", "/ui/app.js", [("if-none-match", f'"other", W/{tag}')])
        other = line.ask("GET", "/ui/app.js", [("if-none-match", '"other"')])
    assert (first.status, first.first("content-type")) == (200, "text/javascript; charset=utf-8")
    assert (again.status, again.body, again.first("etag")) == (304, b"", tag)
    assert (other.status, other.body) == (200, first.body)
    assert first.body == (FOLDER / "app.js").read_bytes()


@pytest.mark.parametrize(
    "target", ["/ui/nothing.js", "/ui/vendor/manifest.json", "/ui/../assets.py", "/ui/%2e%2e/assets.py"]
)
def test_there_is_nothing_else(front: Proxy, target: str) -> None:
    with front.line() as line:
        heard = line.ask("GET", target)
    assert heard.status == 404
    assert json.loads(heard.body)["error"]["message"]


def test_files_need_neither_token_nor_key(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    server = proxy(upstream.url, admin_token="secret", api_keys="me:key")
    with server.line() as line:
        assert line.ask("GET", "/ui").body == (FOLDER / INDEX).read_bytes()
        assert line.ask("GET", "/ui/app.js").status == 200
        assert line.ask("GET", "/admin/cache/entries").status == 401
        assert line.ask("GET", "/admin/cache/groups").status == 401
