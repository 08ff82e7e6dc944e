from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.observe.quantiles import ERROR, EXACT, Distribution

seconds = st.floats(min_value=1e-5, max_value=1e5)
many = st.lists(seconds, min_size=EXACT + 1, max_size=EXACT * 6)
shares = st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0])


def of(values: list[float]) -> Distribution:
    made = Distribution()
    made.add_all(values)
    return made


def true_quantile(values: list[float], share: float) -> float:
    """By definition: the least value that this share of them do not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


@given(st.lists(seconds, min_size=1, max_size=EXACT), shares)
@settings(max_examples=60, deadline=None)
def test_few_values_are_exact(values: list[float], share: float) -> None:
    assert of(values).quantile(share) == true_quantile(values, share)


@given(many, shares)
@settings(max_examples=60, deadline=None)
def test_many_values_are_within_the_stated_error(values: list[float], share: float) -> None:
    assert of(values).quantile(share) == pytest.approx(true_quantile(values, share), rel=ERROR * 1.000001)


@given(st.lists(st.lists(seconds, max_size=EXACT), max_size=8), shares)
@settings(max_examples=60, deadline=None)
def test_parts_merge_to_the_whole_and_survive_packing(parts: list[list[float]], share: float) -> None:
    merged = Distribution()
    for part in parts:
        merged.merge(Distribution.unpack(of(part).pack()))
    values = [value for part in parts for value in part]
    whole = of(values)
    assert merged.count == len(values)
    assert merged.total == pytest.approx(whole.total)
    assert merged.quantile(share) == whole.quantile(share)
    again = Distribution.unpack(merged.pack())
    assert again.pack() == merged.pack()
    assert again.summary() == merged.summary()


@given(many)
@settings(max_examples=20, deadline=None)
def test_one_by_one_is_the_same_as_at_once(values: list[float]) -> None:
    single = Distribution()
    for value in values:
        single.add(value)
    assert [single.quantile(share) for share in (0.0, 0.5, 1.0)] == [
        of(values).quantile(share) for share in (0.0, 0.5, 1.0)
    ]


def test_merging_leaves_the_other_as_it_was() -> None:
    for values in ([1.0, 2.0], [1.0] * (EXACT + 1)):
        one, other = of([5.0]), of(values)
        before = other.pack()
        one.merge(other)
        one.add(7.0)
        assert other.pack() == before


def test_a_summary_says_whether_it_is_exact() -> None:
    assert Distribution().summary() is None
    assert Distribution().quantile(0.5) is None
    few = of([1.0, 2.0, 3.0, 4.0]).summary()
    assert few == {"count": 4, "mean": 2.5, "p50": 2.0, "p95": 4.0, "p99": 4.0, "max": 4.0, "exact": True}
    assert (of([1.0] * (EXACT + 1)).summary() or {})["exact"] is False


def test_whatever_the_values_there_are_few_bins() -> None:
    odd = of([0.0, 1e-300, 1e300] * EXACT)
    assert odd.quantile(0.0) == pytest.approx(1e-6, rel=ERROR)
    assert odd.highest == 1e300
    assert len(odd.pack()) < 100


def test_a_tail_is_told_no_higher_than_it_is() -> None:
    just_in_a_bin = 1.0 + 1e-9
    assert of([just_in_a_bin] * (EXACT * 2)).quantile(1.0) == just_in_a_bin


@pytest.mark.parametrize("packed", [b"", b"\x00\xff\x01", of([1.0]).pack()[:-1], of([1.0, 2.0]).pack()[:-8]])
def test_what_was_not_packed_here_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="no packed distribution"):
        Distribution.unpack(packed)
