"""Lines cut out of pieces, at constant memory. Pure."""

from collections.abc import Iterable, Iterator

#: bytes of a line that are kept: what is longer is no request that a model server takes
LONGEST = 32 * 1024 * 1024

#: lines handed on at a time
_MOST = 500


def cut(pieces: Iterable[bytes], most: int = _MOST, longest: int = LONGEST) -> Iterator[list[bytes]]:
    """The lines in order, up to ``most`` at a time, without their ends (LF or CR LF). An empty last line is none.

    Of a line longer than ``longest`` bytes the rest is left out.
    """
    open_line = _Open(longest)
    for piece in pieces:
        head, *more = piece.split(b"\n")
        open_line.add(head)
        if not more:
            continue
        *whole, rest = more
        lines = [open_line.take(), *(_bare(line[:longest]) for line in whole)]
        open_line.add(rest)
        for at in range(0, len(lines), most):
            yield lines[at : at + most]
    if last := open_line.take():
        yield [last]


class _Open:
    """The line whose end has not come yet."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._room = longest

    def add(self, part: bytes) -> None:
        if part and self._room:
            self._parts.append(part[: self._room])
            self._room -= len(self._parts[-1])

    def take(self) -> bytes:
        line = b"".join(self._parts)
        self._parts, self._room = [], self._longest
        return _bare(line)


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\r")
