"""Which store the settings name."""

import importlib
from pathlib import Path

from llmproxy.config.settings import Settings
from llmproxy.jobs.blobs import Blobs
from llmproxy.jobs.files.folder import Folder

#: loaded by name, so that nobody pays for it who keeps files in a folder
_REMOTE = "llmproxy.jobs.files.remote"


class BlobsUnusable(Exception):
    """Files can not be kept where the settings say; the message says what to do."""


def open_blobs(settings: Settings) -> Blobs:
    """The store of files: a folder, or what is at an fsspec URL. Connects to nothing yet.

    Raises ``BlobsUnusable`` for a URL of an unknown kind, or where the package for it is missing.
    """
    place = settings.files_path
    if "://" in place:
        return _remote(place)
    if place:
        return Folder(Path(place).expanduser())
    database = settings.sqlite_file
    return Folder((database.parent if database is not None else Path("data")) / "files")


def _remote(url: str) -> Blobs:
    # not the whole URL: it may hold a password
    kind = url.partition("://")[0]
    try:
        module = importlib.import_module(_REMOTE)
    except ModuleNotFoundError as error:
        raise BlobsUnusable(
            f"LLMPROXY_FILES_PATH: files at {kind}:// need the package {error.name}: pip install 'llmproxy[files]'"
        ) from error
    try:
        blobs: Blobs = module.Remote(url)
    except (ValueError, ImportError) as error:
        # ours to say is the setting; fsspec's own words name the package that is missing
        raise BlobsUnusable(f"LLMPROXY_FILES_PATH: files cannot be kept at {kind}://: {error}") from error
    return blobs
