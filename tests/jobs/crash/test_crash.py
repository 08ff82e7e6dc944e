"""A server that dies at any moment keeps what it promised."""

from pathlib import Path

import pytest

from tests.jobs.crash.trial import Plan, Trial
from tests.scripted_upstream import ScriptedUpstream


@pytest.mark.parametrize("seed", [1])
def test_what_was_accepted_is_done_once_across_kills(upstream: ScriptedUpstream, tmp_path: Path, seed: int) -> None:
    plan = Plan(rows=60, kills=5, seed=seed)
    report = Trial(plan, upstream, tmp_path).run()
    assert len(report.lost) == plan.kills
    assert report.calls == plan.rows + (plan.kills + 1) * 4
