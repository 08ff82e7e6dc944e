import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmproxy.database.engine import Database
from llmproxy.history import totals
from llmproxy.history.totals import (
    Document,
    Summaries,
    forget_totals,
    one_session,
    one_user,
    session_page,
    user_page,
    uses,
)
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.exchange import Exchange, Usage
from llmproxy.wire.vocabulary import CacheStatus
from tests.history.exchanges import fetched
from tests.history.keeping import followed, write


def exchanges(count: int, seed: int = 3) -> list[Exchange]:
    chance = random.Random(seed)
    return [
        fetched(
            started_at=1_700_000_000.0 + chance.randrange(count),
            user=chance.choice(["ann", "bob"]),
            session=chance.choice(["s1", "s2", ""]),
            cache=chance.choice([*CacheStatus, None]),
            status=chance.choice([200, 200, 500, 0]),
            usage=Usage(chance.choice([None, 10]), chance.choice([None, 2_000_000_000])),
            upstream_seconds=chance.choice([None, 0.5]),
        )
        for _ in range(count)
    ]


def total(made: list[Exchange]) -> dict[str, Any]:
    """What these exchanges add up to, in plain words."""
    looked_up = [each for each in made if each.cache in ("hit", "stale", "miss", "joined", "only-if-cached")]
    hits = [each for each in looked_up if each.cache in ("hit", "stale")]
    return {
        "first_seen": min(each.started_at for each in made),
        "last_seen": max(each.started_at for each in made),
        "requests": len(made),
        "hits": len(hits),
        "errors": sum(each.status != 200 and each.cache != "only-if-cached" for each in made),
        "prompt_tokens": sum(each.usage.prompt_tokens or 0 for each in made),
        "completion_tokens": sum(each.usage.completion_tokens or 0 for each in made),
        "hit_rate": len(hits) / len(looked_up) if looked_up else None,
        "saved_seconds": sum(
            each.upstream_seconds or 0 for each in looked_up if each.cache in ("hit", "stale", "joined")
        ),
    }


async def sums(database: Database) -> dict[tuple[str, ...], dict[str, Any]]:
    """Everything that is summed up, by user, and by user and session."""
    found = {}
    for page in (await user_page(database, 100, None), await session_page(database, 100, None, None)):
        for row in page["data"]:
            key = tuple(row.pop(name) for name in ("user", "session") if name in row)
            found[key] = row
    return found


def expected(made: list[Exchange]) -> dict[tuple[str, ...], dict[str, Any]]:
    groups: defaultdict[tuple[str, ...], list[Exchange]] = defaultdict(list)
    for each in made:
        groups[each.user,].append(each)
        if each.session:
            groups[each.user, each.session].append(each)
    return {key: total(group) for key, group in groups.items()}


async def test_sums_are_what_the_rows_add_up_to(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "CHUNK", 30)
    made = exchanges(100)
    step = Summaries(database)
    await write(database, made[:70])
    assert await followed(step) == 3
    await write(database, made[70:])
    await followed(step)
    await followed(step)
    assert await sums(database) == expected(made)


async def test_keys_have_their_hits_and_their_newest_exchange(database: Database) -> None:
    made = [
        fetched(key="a", started_at=1.0, request_id="first"),
        fetched(key="a", started_at=2.0, cache=CacheStatus.HIT),
        fetched(key="a", started_at=3.0, cache=CacheStatus.JOINED, request_id="last"),
        fetched(key="", started_at=4.0),
        fetched(key="b", started_at=5.0, request_id="other"),
    ]
    for each in made:
        await write(database, [each])
        await followed(Summaries(database))
    known = await uses(database, ["a", "b", "c", ""])
    assert known.keys() == {"a", "b"}
    assert (known["a"]["hits"], known["a"]["last_used"], known["a"]["request_id"]) == (1, 3.0, "last")
    assert (known["b"]["hits"], known["b"]["request_id"]) == (0, "other")
    await forget_totals(database, 4.0)
    assert (await uses(database, ["a", "b"])).keys() == {"b"}


async def test_of_two_processes_one_adds_a_row(database: Database) -> None:
    made = exchanges(60)
    await write(database, made)
    await asyncio.gather(*(followed(Summaries(database)) for _ in range(4)))
    assert await sums(database) == expected(made)


@pytest.mark.parametrize(
    ("user", "session"), [("ann", None), (None, "s1"), ("ann", "s1"), ("nobody", None), (None, "nowhere")]
)
async def test_who_is_erased_is_taken_off_the_sums(database: Database, user: str | None, session: str | None) -> None:
    made = exchanges(80)
    await write(database, made)
    await followed(Summaries(database))
    async with database.write() as connection:
        await totals.erase_totals(connection, user, session)
    left = [each for each in made if user not in (None, each.user) or session not in (None, each.session)]
    found, wanted = await sums(database), expected(left)
    for row in (*found.values(), *wanted.values()):
        # of a user whose session was erased it is no longer known when the others were
        del row["first_seen"], row["last_seen"]
    assert found == wanted


async def test_a_user_with_no_requests_left_is_nobody(database: Database) -> None:
    await write(database, [fetched(user="ann", session="s1")] * 3)
    await followed(Summaries(database))
    async with database.write() as connection:
        await totals.erase_totals(connection, None, "s1")
    assert await sums(database) == {}


async def test_pages_go_by_the_last_request(database: Database) -> None:
    await write(
        database,
        [
            fetched(user=f"u{number % 7}", session=f"s{number % 5}", started_at=1_700_000_000.0 + number // 3)
            for number in range(70)
        ],
    )
    await followed(Summaries(database))
    asks: list[tuple[Callable[[str | None], Awaitable[Document]], int]] = [
        (lambda after: user_page(database, 3, after), 7),
        (lambda after: session_page(database, 3, after, None), 35),
        (lambda after: session_page(database, 3, after, "u1"), 5),
    ]
    for ask, every in asks:
        rows: list[Document] = []
        after: str | None = None
        while True:
            page = await ask(after)
            rows += page["data"]
            after = page["next"]
            if after is None:
                break
        assert len({(row["user"], row.get("session")) for row in rows}) == len(rows) == every
        assert [row["last_seen"] for row in rows] == sorted((row["last_seen"] for row in rows), reverse=True)


async def test_a_user_comes_with_sessions_and_a_session_with_users(database: Database) -> None:
    made = exchanges(50)
    await write(database, made)
    await followed(Summaries(database))
    user, session = await one_user(database, "ann"), await one_session(database, "s1")
    assert user is not None
    assert session is not None
    assert {row["session"] for row in user.pop("sessions")} == {"s1", "s2"}
    assert {row["user"] for row in session.pop("users")} == {"ann", "bob"}
    assert user == {"user": "ann", **total([each for each in made if each.user == "ann"])}
    assert session == {"session": "s1", **total([each for each in made if each.session == "s1"])}
    assert await one_user(database, "nobody") is None
    assert await one_session(database, "") is None


async def test_another_cursor_is_refused(database: Database) -> None:
    with pytest.raises(BadRequest):
        await user_page(database, 3, "WzEsMl0")
