"""prometheus-client's own multiprocess mode, which has no types."""

from collections.abc import Mapping
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from llmproxy.observe.processes.files import Cell, Entries


def write(file: Path, entries: Mapping[str, Cell]) -> None:
    """Adds the entries to the file, or makes one of them."""
    written = MmapedDict(str(file))  # type: ignore[no-untyped-call]
    for key, cell in entries.items():
        written.write_value(key, *cell)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]


def read(file: Path) -> Entries:
    found = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
    return {key: (value, at) for key, value, at, _ in found}


def merged(folder: Path) -> list[Metric]:
    """What the processes of a folder count together."""
    return list(MultiProcessCollector(None, str(folder)).collect())  # type: ignore[no-untyped-call]
