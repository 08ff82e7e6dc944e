"""Blobs in any store that fsspec knows: S3, Google Cloud Storage, Azure, SFTP. Loaded only if one is used."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO

from fsspec.core import url_to_fs  # type: ignore[import-untyped]

from llmproxy.jobs.blobs import BlobWriter, BlockingBlobs


class Remote(BlockingBlobs):
    """One object for each blob, under the path of the URL. Nothing is connected before it is needed.

    Raises ``ValueError`` for a URL of a kind that fsspec does not know, ``ImportError`` if its driver is missing.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        # other processes write too: a remembered listing would hide what they wrote
        self._files, root = url_to_fs(url, use_listings_cache=False)
        self._root = root.rstrip("/")

    def _writer(self, name: str) -> BlobWriter:
        return _RemoteWriter(self._files, self._root, name)

    def _open(self, name: str) -> BinaryIO:
        file: BinaryIO = self._files.open(f"{self._root}/{name}", "rb")
        return file

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")

    def _names(self) -> list[str]:
        try:
            paths: list[str] = self._files.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    def _written_at(self, name: str) -> float:
        when: datetime = self._files.modified(f"{self._root}/{name}")
        return when.timestamp() if when.tzinfo else when.replace(tzinfo=UTC).timestamp()

    def _tidy(self, before: float) -> None:
        """Uploads that were not completed are not objects; the store drops them by rules of its own."""


class _RemoteWriter:
    """An upload that is completed at the end: fsspec's way of transactions, for a single file."""

    def __init__(self, files: Any, root: str, name: str) -> None:
        self._files = files
        self._root = root
        self._path = f"{root}/{name}"
        self._file: Any = None

    def open(self) -> None:
        self._files.makedirs(self._root, exist_ok=True)
        self._file = self._files.open(self._path, "wb", autocommit=False)

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def commit(self) -> None:
        self._file.close()
        self._file.commit()
        self._file = None

    def discard(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            finally:
                file.discard()
