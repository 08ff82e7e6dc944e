import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference
from prometheus_client.exposition import generate_latest

from llmproxy.observe.catalogue import DURATIONS
from llmproxy.observe.collectors import Counter, Gauge, Histogram, Names, Series, tally

seconds = st.one_of(st.floats(min_value=0.0, max_value=1000.0), st.sampled_from(DURATIONS))


def page(*collectors: Series) -> str:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry).decode()


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_created", "_sum"))
    }


@given(st.lists(seconds, min_size=1, max_size=50), st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_a_histogram_counts_as_the_librarys_does_one_by_one_and_in_bulk(values: list[float], cut: int) -> None:
    reference, ours = CollectorRegistry(), CollectorRegistry()
    expected = Reference("h", "help", buckets=DURATIONS, registry=reference)
    histogram = Histogram("h", "help", (), DURATIONS)
    ours.register(histogram)
    for value in values:
        expected.observe(value)
    for value in values[:cut]:
        histogram.observe((), value)
    histogram.observe_all((), tally(values[cut:], DURATIONS))
    assert samples(ours) == samples(reference)


@given(st.lists(seconds, max_size=50))
@settings(max_examples=50, deadline=None)
def test_a_tally_loses_no_value(values: list[float]) -> None:
    tallied = tally(values, DURATIONS)
    assert len(tallied.counts) == len(DURATIONS) + 1
    assert sum(tallied.counts) == len(values)
    assert tallied.total == sum(sorted(values))


def test_series_are_kept_apart_by_labels() -> None:
    counter = Counter("c_total", "Counts.", ("kind",))
    counter.add(("a",))
    counter.add(("b",), 2.5)
    counter.add(("a",))
    assert page(counter).splitlines() == [
        "# HELP c_total Counts.",
        "# TYPE c_total counter",
        'c_total{kind="a"} 2.0',
        'c_total{kind="b"} 2.5',
    ]


def test_without_labels_a_series_is_there_from_the_start() -> None:
    assert "c_total 0.0" in page(Counter("c_total", "Counts."))
    assert "g 0.0" in page(Gauge("g", "Goes."))


def test_a_counter_follows_a_count_kept_elsewhere() -> None:
    counter = Counter("c_total", "Counts.", ("kind",))
    counter.set_total(("a",), 5)
    counter.set_total(("a",), 7)
    assert 'c_total{kind="a"} 7.0' in page(counter)


def test_a_gauge_forgets_what_is_gone() -> None:
    gauge = Gauge("g", "Goes.", ("who",))
    gauge.set(("a",), 1)
    gauge.clear()
    gauge.set(("b",), 2)
    text = page(gauge)
    assert 'g{who="b"} 2.0' in text
    assert 'who="a"' not in text


def test_label_values_are_escaped() -> None:
    counter = Counter("c_total", "Counts.", ("kind",))
    counter.add(('a"\n\\',))
    assert r'c_total{kind="a\"\n\\"} 1.0' in page(counter)


def test_the_first_names_get_through_and_stay() -> None:
    names = Names(2)
    assert [names.label(name) for name in ("a", "b", "c", "a", "d", "b")] == ["a", "b", "other", "a", "other", "b"]


@pytest.mark.parametrize("junk", ["x" * 101, "a\nb", "a\x1b[31m", "\ud800", "a\x00"])
def test_junk_is_other_and_takes_no_place(junk: str) -> None:
    names = Names(1)
    assert names.label(junk) == "other"
    assert names.label("real") == "real"


def test_an_unproven_name_takes_no_place_but_a_known_one_is_shown() -> None:
    names = Names(1)
    assert names.label("typo", proven=False) == "other"
    assert names.label("real") == "real"
    assert names.label("real", proven=False) == "real"


def test_no_name_is_none() -> None:
    assert Names(0).label("") == "none"
