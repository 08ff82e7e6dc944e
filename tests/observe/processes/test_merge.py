"""The numbers of several processes as one page: added up by hand, and by the library."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import mmap_key

from llmproxy.observe.collectors import Across, Counter, Gauge, Histogram, Series
from llmproxy.observe.processes import files
from llmproxy.observe.processes.merge import COUNTER, HISTOGRAM, Keys, families, kind_of
from llmproxy.observe.processes.own import Own, frozen
from tests.observe.processes import library

BOUNDS = (0.5, 1.0, 4194304.0)

amounts = st.lists(st.tuples(st.sampled_from(("a", "b", 'c"\n')), st.integers(0, 1000)), max_size=20)
#: what several processes count
counted = st.lists(amounts, min_size=1, max_size=5)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def metrics(amounts: list[tuple[str, int]]) -> list[Series]:
    """One process's."""
    counter = Counter("c_total", "Counts.", ("who",))
    histogram = Histogram("h", "Spreads.", ("who",), BOUNDS)
    gauges = [Gauge(f"g_{across}", "Goes.", ("who",), across=across) for across in Across if across != Across.NEWEST]
    for who, amount in amounts:
        counter.add((who,), amount)
        histogram.observe((who,), amount / 500)
        for gauge in gauges:
            gauge.set((who,), amount)
    return [counter, histogram, *gauges]


def samples(metrics: list[Metric]) -> Samples:
    """Bounds as numbers, as the library spells some of them in its own way."""
    return {
        (
            sample.name,
            frozenset((name, str(float(value)) if name == "le" else value) for name, value in sample.labels.items()),
        ): sample.value
        for metric in metrics
        for sample in metric.samples
        if not sample.name.startswith("process_")
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


@given(counted)
@settings(max_examples=100, deadline=None)
def test_the_sum_of_processes_is_what_they_count_and_what_the_library_says(
    processes: list[list[tuple[str, int]]],
) -> None:
    readings = [Own().entries(frozen(metrics(amounts)))[0] for amounts in processes]
    found = samples(families(readings, Keys()))
    for who in {who for amounts in processes for who, _ in amounts}:
        mine = [[amount for name, amount in amounts if name == who] for amounts in processes]
        every = [amount for amounts in mine for amount in amounts]
        last = [amounts[-1] for amounts in mine if amounts]
        assert value(found, "c_total", who=who) == sum(every)
        assert value(found, "h_count", who=who) == len(every)
        assert value(found, "h_sum", who=who) == pytest.approx(sum(amount / 500 for amount in every))
        assert value(found, "h_bucket", who=who, le="1.0") == sum(amount <= 500 for amount in every)
        assert value(found, "h_bucket", who=who, le="inf") == len(every)
        assert value(found, "g_livesum", who=who) == sum(last)
        assert value(found, "g_livemin", who=who) == min(last)
        assert value(found, "g_livemax", who=who) == max(last)
    with TemporaryDirectory() as folder:
        for number, reading in enumerate(readings):
            for kind, entries in reading.items():
                files.write(Path(folder) / f"{kind}_llmproxy-{number}.db", entries)
        assert found == pytest.approx(samples(library.merged(Path(folder))))


def test_of_a_gauge_the_newest_counts_whatever_the_order() -> None:
    key = mmap_key("g", "g", [], [], "Goes.")
    kind = kind_of(Across.NEWEST)
    old, new = {kind: {key: (5.0, 1.0)}}, {kind: {key: (3.0, 2.0)}}
    for readings in ([old, new], [new, old]):
        assert samples(families(readings, Keys())) == {("g", frozenset()): 3.0}


def test_one_process_alone_shows_what_it_shows_by_itself() -> None:
    amounts = [("a", 3), ("b", 700), ("a", 1)]
    own, _ = Own().entries(frozen(metrics(amounts)))
    by_itself = [family for series in metrics(amounts) for family in series.collect()]
    assert samples(families([own], Keys())) == samples(by_itself)
    shown = [family for family in families([own], Keys()) if not family.name.startswith("process_")]
    assert [(family.name, family.type, family.documentation) for family in shown] == [
        (family.name, family.type, family.documentation) for family in by_itself
    ]
    # as it was declared, so that a series keeps its name
    words = {sample.labels["le"] for family in shown for sample in family.samples if "le" in sample.labels}
    assert words == {"0.5", "1.0", "4194304.0", "+Inf"}


def test_another_versions_words_and_types_give_way_to_the_first() -> None:
    def counter(help: str, kind: str = COUNTER) -> dict[str, files.Entries]:
        return {kind: {mmap_key("c", "c_total", ["who"], ["a"], help): (1.0, 0.0)}}

    (family,) = families([counter("New."), counter("Old."), counter("Odd.", kind_of(Across.SUM))], Keys())
    assert (family.type, family.documentation) == ("counter", "New.")
    assert [sample.value for sample in family.samples] == [2.0]


def test_buckets_of_another_version_are_between_ours() -> None:
    def histogram(bound: str, help: str) -> dict[str, files.Entries]:
        bounds = (bound, "+Inf")
        return {HISTOGRAM: {mmap_key("h", "h_bucket", ["le"], [each], help): (1.0, 0.0) for each in bounds}}

    found = samples(families([histogram("1.0", "Spreads."), histogram("2.0", "Old.")], Keys()))
    assert [value(found, "h_bucket", le=bound) for bound in ("1.0", "2.0", "inf")] == [1.0, 2.0, 4.0]
    assert value(found, "h_count") == 4.0


def test_it_is_said_when_a_gauge_was_read_where_that_matters() -> None:
    own, _ = Own().entries(frozen([Gauge("g", "Goes.", across=Across.NEWEST)]))
    ((_, read_at),) = own[kind_of(Across.NEWEST)].values()
    assert read_at == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize(
    "junk", ["", "{", "7", "[]", '["a","b",{"c":1},"d"]', '["a","b",[],"d"]', '["a","b",{"le":"x"},"d"]']
)
def test_what_is_no_key_is_refused(junk: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  each in its own words
        Keys()[junk]


def test_what_the_database_knows_is_not_told_to_others() -> None:
    gauge = Gauge("g", "Goes.", ("tier",), shared_series=[("sql",)])
    gauge.set(("sql",), 7)
    gauge.set(("memory",), 5)
    own, shared = Own().entries(frozen([gauge, Gauge("s", "Same.", shared=True)]))
    assert samples(families([own], Keys())) == {("g", frozenset({("tier", "memory")})): 5.0}
    assert samples(families([shared], Keys())) == {("g", frozenset({("tier", "sql")})): 7.0, ("s", frozenset()): 0.0}
