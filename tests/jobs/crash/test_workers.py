"""Two workers and a server on one PostgreSQL."""

from pathlib import Path

from tests.databases import PostgresServer
from tests.jobs.crash.sharing import CALLS, share
from tests.scripted_upstream import ScriptedUpstream

ITEMS = 600


def test_two_workers_share_what_a_server_accepted(
    upstream: ScriptedUpstream, postgres: PostgresServer, tmp_path: Path
) -> None:
    shared = share(ITEMS, False, upstream, postgres.create(), tmp_path)
    assert len(shared.results) == 2
    assert (sum(shared.results), shared.repeats) == (ITEMS, 0)


def test_what_a_worker_that_died_had_begun_is_done_by_the_other(
    upstream: ScriptedUpstream, postgres: PostgresServer, tmp_path: Path
) -> None:
    shared = share(ITEMS, True, upstream, postgres.create(), tmp_path)
    # it died before anything that it had asked for was answered
    assert shared.results == [ITEMS]
    assert shared.repeats == CALLS
