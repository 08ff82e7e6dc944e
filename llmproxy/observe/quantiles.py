"""Many values of one measure, for their quantiles: exact while they are few, a sketch beyond.

The sketch is DDSketch (https://arxiv.org/abs/1908.10693): counts in bins whose bounds grow by 2 % each.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore

#: a sketch's quantile is off by at most this share of its value
ERROR = 0.01
#: so many values are kept as they are
EXACT = 250

#: so many values wait to be put into bins together, which is much cheaper than one by one
_UNBINNED = 1_000

#: smaller and larger values count as these, so that a sketch has 1,382 bins at most
_LEAST, _MOST = 1e-6, 1e6

_MAPPING = LogarithmicMapping(ERROR)

_VALUES, _BINS = 1, 2
#: what follows, number of values, their sum, the highest
_HEAD = struct.Struct("<BQdd")
#: a bin's number, and how many values are in it
_BIN = struct.Struct("<hQ")


class Distribution:
    """Values that are not negative. Merging, packing and unpacking lose nothing beyond the stated error."""

    __slots__ = ("_bins", "_values", "count", "highest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.highest = 0.0
        #: the values, or those that are not yet in the bins
        self._values: list[float] = []
        #: where the values are once they are many
        self._bins: DenseStore | None = None

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        if value > self.highest:
            self.highest = value
        self._values.append(value)
        if len(self._values) >= _UNBINNED:
            self._settled()

    def add_all(self, values: Sequence[float]) -> None:
        if values:
            self.count += len(values)
            self.total += sum(values)
            highest = max(values)
            self.highest = max(self.highest, highest)
            self._keep(values)

    def merge(self, other: "Distribution") -> None:
        """Adds the values of ``other``, which stays what it is."""
        self.count += other.count
        self.total += other.total
        self.highest = max(self.highest, other.highest)
        bins = other._settled()
        if bins is not None:
            if self._bins is None:
                self._bins = DenseStore()
            self._bins.merge(bins)
        self._keep(other._values)

    def quantile(self, share: float) -> float | None:
        """The least value that this share of the values do not exceed; None without values."""
        if self.count == 0:
            return None
        rank = max(0, ceil(share * self.count) - 1)
        bins = self._settled()
        if bins is None:
            return sorted(self._values)[rank]
        return float(min(self.highest, _MAPPING.value(bins.key_at_rank(rank))))

    def summary(self) -> dict[str, Any] | None:
        """JSON-ready, in the unit of the values; None without values."""
        if self.count == 0:
            return None
        return {
            "count": self.count,
            "mean": self.total / self.count,
            "p50": self.quantile(0.50),
            "p95": self.quantile(0.95),
            "p99": self.quantile(0.99),
            "max": self.highest,
            "exact": self._settled() is None,
        }

    def pack(self) -> bytes:
        """A few bytes for each value or bin."""
        sums, bins = (self.count, self.total, self.highest), self._settled()
        if bins is None:
            return _HEAD.pack(_VALUES, *sums) + struct.pack(f"<{len(self._values)}d", *self._values)
        return _HEAD.pack(_BINS, *sums) + b"".join(_BIN.pack(*each) for each in _filled(bins))

    @classmethod
    def unpack(cls, packed: bytes) -> "Distribution":
        """What was packed. Raises ``ValueError`` for anything else."""
        made, kept = cls(), 0.0
        try:
            kind, made.count, made.total, made.highest = _HEAD.unpack_from(packed)
            if kind == _VALUES:
                made._values = [value for (value,) in struct.iter_unpack("<d", packed[_HEAD.size :])]
                kept = len(made._values)
            elif kind == _BINS:
                made._bins = bins = DenseStore()
                for number, count in _BIN.iter_unpack(packed[_HEAD.size :]):
                    bins.add(number, count)
                kept = bins.count
        except struct.error as error:
            raise ValueError(f"no packed distribution: {error}") from error
        if kept != made.count:
            raise ValueError("no packed distribution: the counts differ")
        return made

    def _keep(self, values: Sequence[float]) -> None:
        self._values.extend(values)
        if len(self._values) >= _UNBINNED:
            self._settled()

    def _settled(self) -> DenseStore | None:
        """The bins with all values in them; None if the values are few enough to be kept one by one."""
        if self._bins is None and len(self._values) <= EXACT:
            return None
        if self._bins is None:
            self._bins = DenseStore()
        for number, count in Counter(map(_number, self._values)).items():
            self._bins.add(number, count)
        self._values = []
        return self._bins


def _number(value: float) -> int:
    return int(_MAPPING.key(_LEAST if value < _LEAST else _MOST if value > _MOST else value))


def _filled(bins: DenseStore) -> Iterator[tuple[int, int]]:
    return ((index + bins.offset, int(count)) for index, count in enumerate(bins.bins) if count)
