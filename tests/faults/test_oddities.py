"""Streams that are whole but oddly written: strict ones come out, and they are kept."""

import httpx
import pytest

from tests.faults.outcome import ask
from tests.scripted import STREAMING, Endpoint, marker, named
from tests.scripted_upstream import ScriptedUpstream
from tests.scripted_upstream.answers import ENDPOINTS
from tests.scripted_upstream.oddities import ODDITIES, OF_LINES
from tests.scripted_upstream.script import Script

PAIRS = [(e, oddity) for e in STREAMING for oddity in (OF_LINES if e.lines else ODDITIES)]


@pytest.mark.parametrize(("endpoint", "oddity"), PAIRS, ids=named)
async def test_an_oddly_written_stream_is_mended_and_kept(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, oddity: str
) -> None:
    prompt = f"{marker()} [script:oddity={oddity} words=12]"
    request = endpoint.request(prompt, stream=True)
    first = await ask(http, endpoint, request)
    assert first.status == 200
    assert first.cache == "MISS"
    visit = upstream.visits(prompt)[0]
    answer, _ = ENDPOINTS[endpoint.path]
    expected = answer(visit.number, request, Script.of(visit.body))
    assert endpoint.streamed_text(first.body) == endpoint.text(expected.document)

    again = await ask(http, endpoint, request)
    assert again.cache == "HIT"
    assert again.body == first.body, "a stream is replayed byte for byte"
