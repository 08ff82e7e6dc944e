"""The form of the files, held against the library that it is taken from."""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.observe.processes import files
from tests.observe.processes import library

cells = st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False))
entries = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=40), cells, max_size=20)


@given(entries)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_by_us_and_by_the_library(given: files.Entries) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "counter_llmproxy-0.db"
        files.write(file, given)
        assert files.read(file) == given
        assert library.read(file) == given
        assert [each.name for each in Path(folder).iterdir()] == [file.name]


@given(entries)
@settings(max_examples=50, deadline=None)
def test_what_the_library_writes_is_read(given: files.Entries) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "counter_1.db"
        library.write(file, given)
        assert files.read(file) == given


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_junk_is_refused_or_read_but_nothing_else(junk: bytes) -> None:
    with suppress(ValueError):
        files.decode(junk)


@pytest.mark.parametrize("cut", [1, 8, 17])
def test_a_file_that_was_cut_off_is_refused(cut: int) -> None:
    whole = files.encode({"a": (1.0, 0.0), "b": (2.0, 0.0)})
    assert files.decode(whole) == {"a": (1.0, 0.0), "b": (2.0, 0.0)}
    with pytest.raises(ValueError, match="buffer"):
        files.decode(whole[:-cut])


def test_a_key_that_would_lead_backwards_is_refused() -> None:
    with pytest.raises(ValueError, match="less than nothing"):
        files.decode((24).to_bytes(8, "little") + (-24).to_bytes(4, "little", signed=True) + bytes(12))


def test_a_file_that_ends_elsewhere_than_it_says_is_refused() -> None:
    whole = files.encode({"a": (1.0, 0.0)})
    with pytest.raises(ValueError, match="elsewhere"):
        files.decode((len(whole) - 1).to_bytes(8, "little") + whole[8:])


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "counter_llmproxy-0.db"
    with file.open("wb") as made:
        made.truncate(files.LARGEST + 1)
    with pytest.raises(ValueError, match="too large"):
        files.read(file)
