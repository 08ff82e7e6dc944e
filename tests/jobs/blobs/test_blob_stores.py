"""Where files are kept, by the settings."""

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from llmproxy.config.settings import Settings
from llmproxy.config.values import default_database
from llmproxy.jobs.blob_stores import BlobsUnusable, open_blobs
from llmproxy.jobs.blobs import Blobs
from tests.cli.program import user_folders


async def put(blobs: Blobs) -> None:
    async with blobs.create("file-a") as sink:
        await sink.write(b"x")


async def test_beside_the_database(tmp_path: Path) -> None:
    await put(open_blobs(Settings(database_path=tmp_path / "data" / "x.db")))
    assert (tmp_path / "data" / "files" / "file-a").read_bytes() == b"x"


async def test_in_the_users_folder_where_the_database_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in user_folders(tmp_path).items():
        monkeypatch.setenv(name, value)
    settings = Settings(database_url="postgresql://host/name")
    await put(open_blobs(settings))
    folder = default_database().parent / "files"
    assert folder.is_relative_to(tmp_path)
    assert (folder / "file-a").read_bytes() == b"x"
    # files that are already in the working directory stay in use
    (tmp_path / "data" / "files").mkdir(parents=True)
    await put(open_blobs(settings))
    assert (tmp_path / "data" / "files" / "file-a").read_bytes() == b"x"


async def test_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(open_blobs(Settings(files_path=str(tmp_path / "here"))))
    assert (tmp_path / "here" / "file-a").read_bytes() == b"x"
    monkeypatch.setenv("HOME", str(tmp_path))
    await put(open_blobs(Settings(files_path="~/there")))
    assert (tmp_path / "there" / "file-a").read_bytes() == b"x"


async def test_at_a_url(tmp_path: Path) -> None:
    await put(open_blobs(Settings(files_path=f"file://{tmp_path}/far")))
    assert (tmp_path / "far" / "file-a").read_bytes() == b"x"


@pytest.mark.parametrize("url", ["nothing://user:secret@bucket", "hdfs://user:secret@host/path"])
def test_a_url_of_an_unknown_kind_or_without_its_driver_is_unusable(url: str) -> None:
    with pytest.raises(BlobsUnusable, match="LLMPROXY_FILES_PATH") as told:
        open_blobs(Settings(files_path=url))
    assert "secret" not in str(told.value)


def test_without_fsspec_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "fsspec" or name.endswith("blobs_fsspec")]:
        monkeypatch.delitem(sys.modules, name)
    really = builtins.__import__

    def refuse(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("fsspec"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="fsspec")
        return really(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BlobsUnusable, match=r"pip install 'llm-caching-proxy\[files\]'"):
        open_blobs(Settings(files_path="s3://bucket/path"))
