"""Who has which place in a folder, and what becomes of it when its process is gone."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import mmap_key

from llmproxy.observe.collectors import Across
from llmproxy.observe.processes.folder import Folder
from llmproxy.observe.processes.merge import COUNTER, Keys, Reading, kind_of
from llmproxy.observe.processes.place import MOST, Place

COUNT = mmap_key("c", "c_total", [], [], "Counts.")
GOES = mmap_key("g", "g", [], [], "Goes.")
GAUGE = kind_of(Across.SUM)

#: takes a place, says so, and waits
HOLDER = """
import sys
from pathlib import Path
from llmproxy.observe.processes.folder import Folder
from llmproxy.observe.processes.merge import Keys
folder = Folder(Path(sys.argv[1]), Keys())
folder.write({"counter": {sys.argv[2]: (10.0, 0.0)}, "gauge_livesum": {sys.argv[3]: (3.0, 0.0)}})
print("written", flush=True)
sys.stdin.read()
"""


def own(count: float, goes: float = 1.0) -> Reading:
    return {COUNTER: {COUNT: (count, 0.0)}, GAUGE: {GOES: (goes, 0.0)}}


def opened(path: Path) -> Folder:
    return Folder(path, Keys())


def seen(folder: Folder) -> dict[str, Reading]:
    folder.read()
    return folder.others


def test_each_has_a_place_and_sees_the_others(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics"
    one, other = opened(path), opened(path)
    one.write(own(1.0))
    other.write(own(2.0))
    assert seen(one) == {"llmproxy-1": own(2.0)}
    assert seen(other) == {"llmproxy-0": own(1.0)}
    one.write(own(5.0, 0.0))
    assert seen(other) == {"llmproxy-0": own(5.0, 0.0)}


def test_who_leaves_leaves_counts_and_no_gauges(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    one.write(own(1.0))
    other.write(own(2.0))
    other.leave()
    other.leave()
    assert seen(one) == {"llmproxy-1": {COUNTER: {COUNT: (2.0, 0.0)}}}
    assert not list(tmp_path.glob("gauge_*_llmproxy-1.db"))


def test_who_comes_goes_on_with_what_was_left(tmp_path: Path) -> None:
    one, watching = opened(tmp_path), opened(tmp_path)
    one.write(own(1.0))
    watching.write(own(0.0))
    one.leave()
    for total in (4.0, 7.0):
        following = opened(tmp_path)
        following.write(own(3.0))
        following.write(own(3.0))
        assert seen(watching)["llmproxy-0"] == own(total)
        following.leave()
    assert len(list(tmp_path.glob("*.db"))) == 3


def test_of_one_that_was_killed_counts_stay_and_gauges_vanish(tmp_path: Path) -> None:
    watching = opened(tmp_path)
    watching.write(own(0.0))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), COUNT, GOES], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        assert seen(watching) == {"llmproxy-1": own(10.0, 3.0)}
        child.kill()
    counts = {"llmproxy-1": {COUNTER: {COUNT: (10.0, 0.0)}}}
    assert seen(watching) == counts
    assert not list(tmp_path.glob("gauge_*_llmproxy-1.db"))
    assert seen(watching) == counts


def test_two_who_look_after_a_dead_one_do_not_take_each_other_for_it(tmp_path: Path) -> None:
    watching, gone = opened(tmp_path), opened(tmp_path)
    watching.write(own(0.0))
    gone.write(own(1.0))
    gone.leave()
    (tmp_path / f"{GAUGE}_llmproxy-1.db").write_bytes((tmp_path / f"{GAUGE}_llmproxy-0.db").read_bytes())
    with (tmp_path / "llmproxy-1.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert GAUGE not in seen(watching)["llmproxy-1"]


def test_a_folder_that_is_emptied_is_filled_again(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    one.write(own(1.0))
    other.write(own(2.0))
    for file in tmp_path.iterdir():
        file.unlink()
    tmp_path.rmdir()
    # the other one is quicker: both had been certain of their places
    other.write(own(2.0))
    one.write(own(1.0))
    assert seen(one) == {"llmproxy-0": own(2.0)}
    assert seen(other) == {"llmproxy-1": own(1.0)}


def test_whose_lock_was_removed_does_not_count_itself_twice(tmp_path: Path) -> None:
    one, watching = opened(tmp_path), opened(tmp_path)
    one.write(own(1.0))
    watching.write(own(0.0))
    (tmp_path / "llmproxy-0.lock").unlink()
    one.write(own(2.0))
    assert seen(watching) == {"llmproxy-0": own(2.0)}


def test_of_what_breaks_the_last_good_one_is_kept(tmp_path: Path) -> None:
    one, watching = opened(tmp_path), opened(tmp_path)
    one.write(own(1.0))
    watching.write(own(0.0))
    assert seen(watching) == {"llmproxy-0": own(1.0)}
    (tmp_path / "counter_llmproxy-0.db").write_bytes(b"junk")
    assert seen(watching) == {"llmproxy-0": own(1.0)}
    assert watching.broken == ["counter_llmproxy-0.db"]
    one.write(own(2.0))
    assert seen(watching) == {"llmproxy-0": own(2.0)}
    assert watching.broken == []


def test_junk_is_named_or_left_alone(tmp_path: Path) -> None:
    for name in ("counter_llmproxy-7.db", "histogram_llmproxy-8.db"):
        (tmp_path / name).write_bytes(os.urandom(100))
    for name in ("llmproxy.db", "counter_1.db", "gauge_all_llmproxy-1.db", "notes.txt"):
        (tmp_path / name).write_bytes(b"somebody else's")
    (tmp_path / "counter_llmproxy-9.db").mkdir()
    os.mkfifo(tmp_path / "counter_llmproxy-10.db")
    watching = opened(tmp_path)
    watching.write(own(1.0))
    seen(watching)
    assert watching.broken == ["counter_llmproxy-7.db", "histogram_llmproxy-8.db"]
    assert (tmp_path / "llmproxy.db").read_bytes() == b"somebody else's"
    # a place whose files are broken can be taken all the same
    watching.leave()
    (tmp_path / "counter_llmproxy-0.db").write_bytes(b"junk")
    following = opened(tmp_path)
    following.write(own(2.0))
    assert following.before == {}


def test_gauges_without_a_lock_are_of_nobody(tmp_path: Path) -> None:
    one, watching = opened(tmp_path), opened(tmp_path)
    watching.write(own(0.0))
    one.write(own(1.0))
    (tmp_path / "llmproxy-1.lock").unlink()
    assert seen(watching) == {"llmproxy-1": {COUNTER: {COUNT: (1.0, 0.0)}}}
    one.write(own(1.0))
    assert seen(watching) == {"llmproxy-1": own(1.0)}


def test_where_no_folder_can_be_there_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = opened(tmp_path / "file" / "metrics")
    for _ in range(2):
        with pytest.raises(OSError, match="Not a directory"):
            folder.write(own(1.0))
    folder.leave()


def test_places_are_bounded(tmp_path: Path) -> None:
    places = [Place.take(tmp_path) for _ in range(MOST)]
    with pytest.raises(OSError, match=f"{MOST} processes"):
        Place.take(tmp_path)
    places[5].leave()
    assert Place.take(tmp_path).name == places[5].name
    for place in places[:5] + places[6:]:
        place.leave()
