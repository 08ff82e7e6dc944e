"""The stores of blobs: a folder of this machine, or of one that several machines share; and which store the settings
name."""

import importlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from llmproxy.config.settings import Settings
from llmproxy.config.values import default_database
from llmproxy.jobs.blobs import Blobs, BlobWriter, BlockingBlobs

#: files that are being written, or were when the program died
_PARTIAL = re.compile(r"\.file-[A-Za-z0-9_-]+\.[0-9a-f]{16}\.part")


class Folder(BlockingBlobs):
    """One file for each blob; only the owner may look into it. The folder is made when it is first needed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def _writer(self, name: str) -> BlobWriter:
        return _FolderWriter(self._path, name)

    def _open(self, name: str) -> BinaryIO:
        return (self._path / name).open("rb")

    def _delete(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._path) as entries:
                return [entry.name for entry in entries]
        except FileNotFoundError:
            return []

    def _written_at(self, name: str) -> float:
        return (self._path / name).stat().st_mtime

    def _tidy(self, before: float) -> None:
        for name in self._names():
            if _PARTIAL.fullmatch(name):
                # the one who writes it may be done with it at this moment
                with suppress(FileNotFoundError):
                    if self._written_at(name) < before:
                        (self._path / name).unlink()


class _FolderWriter:
    """Written beside its place, and moved there once it is on the disk."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._place = folder / name
        self._path = folder / f".{name}.{secrets.token_hex(8)}.part"
        self._file: BinaryIO | None = None

    def open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)

    def commit(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._path.replace(self._place)
        # the name is on the disk when its folder is
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        try:
            if self._file is not None:
                # on a full disk even this fails: it writes what is left
                self._file.close()
        finally:
            self._path.unlink(missing_ok=True)


#: loaded by name, so that nobody pays for it who keeps files in a folder
_REMOTE = "llmproxy.jobs.blobs_fsspec"


class BlobsUnusable(Exception):
    """Files cannot be stored at the place that the settings name; the message says what to do."""


def open_blobs(settings: Settings) -> Blobs:
    """The store of files: a folder, or what is at an fsspec URL. Connects to nothing yet.

    Raises ``BlobsUnusable`` for a URL of an unknown kind, or if the package for it is missing.
    """
    path_or_url = settings.files_path
    if "://" in path_or_url:
        return _remote(path_or_url)
    if path_or_url:
        return Folder(Path(path_or_url).expanduser())
    earlier, database = Path("data/files"), settings.sqlite_file or default_database()
    # as earlier versions made it in the working directory if there was no file of a database
    is_kept = settings.sqlite_file is None and earlier.exists()
    return Folder(earlier if is_kept else database.parent / earlier.name)


def _remote(url: str) -> Blobs:
    # not the whole URL: it may hold a password
    kind = url.partition("://")[0]
    try:
        module = importlib.import_module(_REMOTE)
    except ModuleNotFoundError as error:
        raise BlobsUnusable(
            f"LLMPROXY_FILES_PATH: files at {kind}:// need the package {error.name}: "
            "pip install 'llm-caching-proxy[files]'"
        ) from error
    try:
        blobs: Blobs = module.Remote(url)
    except (ValueError, ImportError) as error:
        # we name the setting; fsspec's own message names the package that is missing
        raise BlobsUnusable(f"LLMPROXY_FILES_PATH: files cannot be kept at {kind}://: {error}") from error
    return blobs
