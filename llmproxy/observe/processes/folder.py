"""The folder that processes share: what this one writes into it, and what the others have written."""

import re
from contextlib import suppress
from pathlib import Path

from llmproxy.observe.processes import files
from llmproxy.observe.processes.merge import COUNTER, HISTOGRAM, Keys, Reading, merged
from llmproxy.observe.processes.place import Place, forget_gauges_of_the_dead, remove_gauges

#: counts that outlive their process
_LASTING = (COUNTER, HISTOGRAM)
_FILE = re.compile(r"(counter|histogram|gauge_live(?:sum|min|max|mostrecent))_(llmproxy-\d+)\.db")


class Folder:
    """Blocking; used by one thread at a time. Methods raise ``OSError``."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self.path = path
        self._keys = keys
        self._place: Place | None = None
        #: what those had counted who had this place before
        self.before: Reading = {}
        #: of the others by the names of their places, when they were read last
        self.others: dict[str, Reading] = {}
        #: files of others that could not be read then
        self.broken: list[str] = []

    def write(self, own: Reading) -> None:
        """Shows the others what this process counts, and what its predecessors did."""
        place = self._taken()
        for kind, entries in merged([own, self.before]).items():
            files.write(self._file(kind, place), entries)

    def read(self) -> None:
        """Takes in what others have written. Of a file that cannot be read it keeps what was read last."""
        others: dict[str, Reading] = {}
        broken = []
        dead: dict[str, bool] = {}
        for kind, name in self._files_of_others():
            if name not in dead:
                dead[name] = forget_gauges_of_the_dead(self.path, name)
            if dead[name] and kind not in _LASTING:
                continue
            file = self.path / f"{kind}_{name}.db"
            try:
                entries = self._read(file)
            except FileNotFoundError:
                # its process ended while we looked
                continue
            except (OSError, ValueError):
                broken.append(file.name)
                entries = self.others.get(name, {}).get(kind, {})
            others.setdefault(name, {})[kind] = entries
        self.others, self.broken = others, broken

    def leave(self) -> None:
        """What was counted stays, for whoever comes next."""
        if self._place is not None:
            place, self._place = self._place, None
            if place.kept:
                remove_gauges(self.path, place.name)
            place.leave()

    def _files_of_others(self) -> list[tuple[str, str]]:
        """The kind and the name of each one's place."""
        found = [_FILE.fullmatch(file.name) for file in sorted(self.path.glob("*.db")) if file.is_file()]
        mine = "" if self._place is None else self._place.name
        return [(each[1], each[2]) for each in found if each is not None and each[2] != mine]

    def _taken(self) -> Place:
        lost = self._place
        if lost is not None and lost.kept:
            return lost
        self._place = None
        if lost is not None:
            lost.leave()
        place = Place.take(self.path)
        try:
            remove_gauges(self.path, place.name)
            if lost is None or lost.name != place.name:
                # else what is there, if anything, is our own
                self.before = self._lasting(place)
        except BaseException:
            place.leave()
            raise
        self._place = place
        return place

    def _lasting(self, place: Place) -> Reading:
        found: Reading = {}
        for kind in _LASTING:
            # one that is broken is replaced by the next that is written
            with suppress(FileNotFoundError, ValueError):
                found[kind] = self._read(self._file(kind, place))
        return found

    def _read(self, file: Path) -> files.Entries:
        entries = files.read(file)
        for key in entries:
            # raises ValueError for one that is none
            self._keys[key]
        return entries

    def _file(self, kind: str, place: Place) -> Path:
        return self.path / f"{kind}_{place.name}.db"
