"""Calls between their check and the queue."""

import errno
from io import BytesIO
from pathlib import Path

import pytest

from llmproxy.api.batch_steps import CallSpool
from llmproxy.jobs.model import NewCall, Step
from llmproxy.wire.errors import Unavailable
from tests.api.batches.by_hand import by_hand
from tests.api.batches.made import request


class Full(BytesIO):
    """A disk without room."""

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_calls_come_out_as_they_went_in() -> None:
    pages = [[NewCall(1, b'{"a":1}', "x"), NewCall(3, b"{}", "")], [NewCall(4, b"\n" * 1000, "é\n")]]
    spool = CallSpool(BytesIO())
    for page in pages:
        spool.put(page)
    assert list(spool.pages()) == pages


def test_nothing_comes_out_of_an_empty_one() -> None:
    assert list(CallSpool(BytesIO()).pages()) == []


def test_a_full_disk_is_something_that_passes() -> None:
    with pytest.raises(Unavailable, match="No space left"):
        CallSpool(Full()).put([NewCall(1, b"{}", "")])


async def test_more_than_fits_into_memory(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproxy.api.batch_steps._SPOOL_BYTES", 100)
    async with by_hand(tmp_path, database_url) as hand:
        job = await hand.batch(*(request(f"r{number}") for number in range(600)))
        await hand.do(Step.VALIDATE)
        assert await hand.labels(job) == [f"r{number}" for number in range(600)]
