"""What a load test ends with: the table, and whether what is wanted was kept. The exit code says it, too."""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from locust.env import Environment
from locust.exception import StopTest
from locust.runners import WorkerRunner
from locust.stats import RequestStats, StatsEntry

from llmproxy.cli.bench import own_cache
from llmproxy.cli.format import aligned
from llmproxy.cli.options import CommandFailed
from llmproxy.observe.access_log import duration
from tests.load.offer import Offer, look
from tests.load.usage import ProcessUsage, usage_text
from tests.load.verdict import Limits, Seen, verdict

#: the methods under which times are kept that are none of a request: to a stream's first token, to a task's end
FIRST_TOKEN, TASK = "TTFT", "TASK"
#: said of a task in the place of what the cache did
ACCEPTED = "accepted"
#: of the X-Cache of a request that looked into the cache
HITS, LOOKED_UP = {"hit", "stale"}, {"hit", "stale", "miss", "joined"}
#: what ``X-Cache`` says, and a task, in the order of the table's rows
_ORDER = ("miss", "joined", "hit", "stale", "bypass", ACCEPTED, "finished")
#: names of tasks that ask one question for an answer at once: their hits and misses can be compared
HOT_SET, LONG_TAIL = "hot set", "long tail"


@dataclass(frozen=True)
class _Limit:
    """An option of the command line. ``unit`` is what its number is multiplied with."""

    option: str
    default: float
    unit: float
    help: str


#: what is wanted, in the order of ``Limits``
LIMITS = (
    _Limit("max-p95", 5.0, 1.0, "seconds that 95 of 100 questions may take [5]"),
    _Limit("max-errors", 1.0, 0.01, "percent of the requests that may fail [1]"),
    _Limit("min-hit-rate", 80.0, 0.01, "percent of the hot set that must be hits [80]"),
    _Limit("min-quicker", 90.0, 0.01, "percent by which a hit must be quicker than a miss [90]"),
)


class Judge:
    """Looks at the proxy before a run and at its process during it; says at the end how the run was.

    ``host`` is the proxy's URL where none is given. ``check`` raises ``CommandFailed`` where nothing offered is wanted.
    """

    def __init__(self, environment: Environment, host: str, check: Callable[[Environment, Offer], None]) -> None:
        assert environment.parsed_options is not None, "locust was started as a program"
        self._environment = environment
        self._options: Namespace = environment.parsed_options
        self._host = host
        self._check = check
        self._usage: ProcessUsage | None = None
        self._running = self._stopping = False
        self._lines: list[str] = []
        for event in ("test_start", "test_stopping", "test_stop", "quitting", "quit"):
            getattr(environment.events, event).add_listener(getattr(self, event))

    def look(self) -> None:
        """Finds out what the proxy offers, and tells the callers by the options: locust's workers get these. Raises
        ``CommandFailed``."""
        if not self._options.run_time:
            raise CommandFailed("the run time must be longer than 0")
        where = (self._environment.host or self._host).rstrip("/").removesuffix("/v1")
        self._environment.host = where
        key = self._options.api_key or None
        offer = look(where, key, self._options.model or None, embedding=True)
        self._check(self._environment, offer)
        self._options.offer = asdict(offer)
        self._options.headers = own_cache("load", key)
        self._usage = ProcessUsage(where)

    def test_start(self, **_: object) -> None:
        if not self._options.headless:
            # its host is known only now, and may be another than the last time
            self._look_again()
        assert self._environment.runner is not None, "it is what starts"
        assert self._usage is not None, "the proxy was looked at"
        self._running, self._stopping = True, False
        self._environment.stop_timeout = self._options.stop_timeout
        self._environment.runner.greenlet.spawn(self._watch, self._usage)

    def _look_again(self) -> None:
        try:
            self.look()
        except CommandFailed as error:
            assert self._environment.runner is not None, "it is what starts"
            # the page shows it
            self._environment.runner.log_exception("local", str(error), "")
            raise StopTest(str(error)) from None
        if self._environment.shape_class is not None:
            # a model that was loaded first took none of the run's time
            self._environment.shape_class.reset_time()  # type: ignore[no-untyped-call]

    def test_stopping(self, **_: object) -> None:
        """Who stops a run before its time, or a second time, does not wait for answers."""
        shape = self._environment.shape_class
        early = shape is not None and shape.get_run_time() < self._options.run_time  # type: ignore[no-untyped-call]
        if early or self._stopping:
            self._environment.stop_timeout = 0.0
        self._stopping = True

    def test_stop(self, **_: object) -> None:
        if self._usage is not None and self._running:
            self._usage.read()
        self._running = False

    def quitting(self, **_: object) -> None:
        if self._usage is None:
            # nobody pressed the page's button
            return
        seen = _seen(self._environment.stats)
        limits = Limits(*(vars(self._options)[each.option.replace("-", "_")] * each.unit for each in LIMITS))
        checks = list(verdict(seen, limits))
        assert self._environment.runner is not None, "it is what quits"
        broken = sum(each["count"] for each in self._environment.runner.exceptions.values())
        self._environment.process_exit_code = int(bool(broken) or any(check.kept is False for check in checks))
        self._lines = [
            *("", *aligned(_table(self._environment.stats), left=2), ""),
            f"the proxy used {usage_text(self._usage.used)}",
            *([f"exceptions of the load test itself: {broken:,}"] if broken else []),
            *("", *aligned((check.row for check in checks), left=1)),
        ]

    def quit(self, **_: object) -> None:
        # after all that locust itself prints
        sys.stdout.writelines(f"{line}\n" for line in self._lines)

    def _watch(self, usage: ProcessUsage) -> None:
        while self._running and usage is self._usage:
            usage.read()
            time.sleep(1)


def tell_when_stopped(environment: Environment, worker: WorkerRunner) -> None:
    """Has one of several processes report to the one that judges as soon as its callers are stopped."""

    def stopped(**_: object) -> None:
        # some seconds later nobody listens any more
        worker._send_stats()
        # it would wait for so long again, with nobody left to stop
        environment.stop_timeout = 0.0

    environment.events.test_stop.add_listener(stopped)  # type: ignore[no-untyped-call]


def _table(stats: RequestStats) -> Iterator[list[str]]:
    yield ["", "", "number", "a second", "P50", "P95", "P99", "failed"]
    rows = [(*entry.name.partition(": ")[::2], entry) for entry in stats.entries.values()]
    for name, word, entry in sorted(rows, key=lambda row: (row[0], row[2].method == FIRST_TOKEN, _order(row[1]))):
        yield _row(name, f"{word}, first token" if entry.method == FIRST_TOKEN else word, entry)
    yield _row("all questions", "", _sum(stats, _is_question))


def _row(name: str, word: str, entry: StatsEntry) -> list[str]:
    times = (duration(_quantile(entry, share)) for share in (0.5, 0.95, 0.99))
    return [name, word, f"{entry.num_requests:,}", f"{entry.total_rps:,.1f}", *times, f"{entry.num_failures:,}"]


def _seen(stats: RequestStats) -> Seen:
    """What the limits are about."""

    def of(names: set[str], words: set[str]) -> StatsEntry:
        wanted = {f"{name}: {word}" for name in names for word in words}
        return _sum(stats, lambda entry: entry.name in wanted and _is_question(entry))

    asked, hot, compared = _sum(stats, _is_question), of({HOT_SET}, LOOKED_UP), {HOT_SET, LONG_TAIL}
    accepted = _sum(stats, lambda entry: entry.name.endswith(f": {ACCEPTED}"))
    ended = _sum(stats, lambda entry: entry.method == TASK)
    hit, miss = _quantile(of(compared, HITS), 0.5), _quantile(of(compared, {"miss"}), 0.5)
    return Seen(
        p95=_quantile(asked, 0.95),
        # a task that failed was answered all the same: it is one more failure
        errors=_sum(stats, lambda entry: entry.method != FIRST_TOKEN).fail_ratio if asked.num_requests else None,
        hit_rate=of({HOT_SET}, HITS).num_requests / hot.num_requests if hot.num_requests else None,
        quicker=None if hit is None or not miss else 1 - hit / miss,
        finished=ended.num_requests / accepted.num_requests if accepted.num_requests else None,
    )


def _sum(stats: RequestStats, counts: Callable[[StatsEntry], bool]) -> StatsEntry:
    """All entries that count, as one."""
    total = StatsEntry(stats, "", "")
    for entry in filter(counts, stats.entries.values()):
        total.extend(entry)
    return total


def _is_question(entry: StatsEntry) -> bool:
    """And no look at a task, of which there are many, all of them quick."""
    return entry.method == "POST"


def _quantile(entry: StatsEntry, share: float) -> float | None:
    """Seconds; None where there is nothing."""
    return entry.get_response_time_percentile(share) / 1e3 if entry.num_requests else None


def _order(word: str) -> int:
    return _ORDER.index(word) if word in _ORDER else len(_ORDER)
