"""The page's files: what they are, how they are served, and that they need nobody else."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from llmproxy.admin.ui.assets import FOLDER, read
from llmproxy.admin.ui.bundle import script
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
def test_nothing_is_named_by_an_address_that_is_not_relative(path: object) -> None:
    """The page may be served below any path. Its calls go by ``lib/api.js``, which knows where it is."""
    text = FOLDER.joinpath(str(path)).read_text()
    assert re.findall(r'(?:src|href)="/', text) == []
    # the namespaces of XML are names, not addresses
    assert re.findall(r"https?://(?!www\.w3\.org/)[a-z0-9]", text) == []


def test_every_file_is_served_and_every_one_that_is_named_is_there() -> None:
    assets = read()
    for found in re.findall(r'(?:src|href)="ui/([^"#]+)"', assets[""].body.decode()):
        assert found in assets
    modules = {path.relative_to(FOLDER).as_posix() for path in OURS if path.suffix == ".js"}
    assert set(re.findall(r'^modules\["([^"]+)"\] = ', assets["page.js"].body.decode(), re.MULTILINE)) == modules
    for path in OURS:
        if path.suffix == ".css":
            assert path.read_bytes() in assets["page.css"].body


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ('import all from "./other.js";\n', "cannot be bundled"),
        ('import { one } from "./other.js"\n', "cannot be bundled"),
        ("export default 1;\n", "cannot be bundled"),
        ('import { one } from "./app.js";\n', "by way of others"),
    ],
)
def test_what_cannot_be_bundled_is_refused(tmp_path: Path, text: str, flaw: str) -> None:
    (tmp_path / "vendor").symlink_to(VENDOR)
    (tmp_path / "app.js").write_text(text)
    with pytest.raises(ValueError, match=flaw):
        script(tmp_path)


def test_the_first_view_is_small(front: Proxy) -> None:
    """What is there before the figures: fewer than 15 requests, less than 150 KB."""
    sizes = []
    with front.line() as line:
        for path in ("/ui", "/ui/page.css", "/ui/page.js", "/ui/icon.svg"):
            heard = line.ask("GET", path, [("accept-encoding", "gzip, deflate, br, zstd")])
            assert (heard.status, heard.first("content-encoding")) == (200, "gzip")
            plain = line.ask("GET", path)
            assert gzip.decompress(heard.body) == plain.body
            assert heard.first("etag") != plain.first("etag")
            sizes.append(len(heard.body))
    assert sum(sizes) < 100_000


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
        first = line.ask("GET", "/ui/page.js")
        tag = first.first("etag") or ""
        again = line.ask("GET", "/ui/page.js", [("if-none-match", f'"other", W/{tag}')])
        other = line.ask("GET", "/ui/page.js", [("if-none-match", '"other"')])
    assert (first.status, first.first("content-type")) == (200, "text/javascript; charset=utf-8")
    assert (again.status, again.body, again.first("etag")) == (304, b"", tag)
    assert (other.status, other.body) == (200, first.body)
    assert first.body == read()["page.js"].body


@pytest.mark.parametrize(
    "target", ["/ui/nothing.js", "/ui/app.js", "/ui/vendor/manifest.json", "/ui/../assets.py", "/ui/%2e%2e/assets.py"]
)
def test_there_is_nothing_else(front: Proxy, target: str) -> None:
    with front.line() as line:
        heard = line.ask("GET", target)
    assert heard.status == 404
    assert json.loads(heard.body)["error"]["message"]


def test_files_need_neither_token_nor_key(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    server = proxy(upstream.url, admin_token="secret", api_keys="me:key")
    with server.line() as line:
        assert line.ask("GET", "/ui").body == (FOLDER / "index.html").read_bytes()
        assert line.ask("GET", "/ui/page.js").status == 200
        assert line.ask("GET", "/admin/cache/entries").status == 401
        assert line.ask("GET", "/admin/cache/groups").status == 401
