"""Identities of models: a model's name is not its weights. They survive a restart, so that what is cached is found even
while no model server is up.
"""

import logging
from asyncio import timeout
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy import delete, insert, select

from llmproxy.database.engine import Database
from llmproxy.database.faults import fault_of
from llmproxy.runtime.background import LogOnce
from llmproxy.upstream.tables import model_identities


def digest(facts: Any) -> str:
    """Hex sha256 of all that is known to stand behind a model's name, whatever order it is told in."""
    return sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def more_precise(identity: str, than: str) -> bool:
    """Whether an identity says all that another one does, and something that could not be told then."""
    return identity.startswith(f"{than}:")


def together(identities: Collection[str]) -> str:
    """The identity of a name that several servers have: theirs where they agree, else all of them as one."""
    if len(identities) == 1:
        return next(iter(identities))
    most = {one for one in identities if not any(more_precise(other, one) for other in identities)}
    return next(iter(most)) if len(most) == 1 else digest(sorted(most))


log = logging.getLogger(__name__)

_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SavedIdentity:
    """What was last known of one upstream. ``identities`` are by name, "" being every other name; time is Unix."""

    upstream: str
    kind: str
    identities: dict[str, str]
    seen_at: float


class IdentityStore:
    """The table ``model_identities``. Whatever goes wrong with the database is logged once and does not matter."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = LogOnce(log)

    async def load(self) -> dict[str, SavedIdentity]:
        """By upstream."""
        try:
            async with timeout(_SECONDS), self._database.read() as connection:
                rows = (await connection.execute(select(model_identities))).all()
        except Exception as error:  # noqa: BLE001  each driver has errors of its own, and none may matter here
            self._failed(error)
            return {}
        found: dict[str, SavedIdentity] = {}
        for row in rows:
            seen = found.setdefault(row.upstream, SavedIdentity(row.upstream, row.kind, {}, row.seen_at))
            seen.identities[row.model] = row.identity
        return found

    async def save(self, seen: SavedIdentity) -> None:
        """In place of what was known of this upstream."""
        table = model_identities
        rows = [
            {"upstream": seen.upstream, "model": m, "identity": i, "kind": seen.kind, "seen_at": seen.seen_at}
            for m, i in seen.identities.items()
        ]
        try:
            async with timeout(_SECONDS), self._database.write() as connection:
                await connection.execute(delete(table).where(table.c.upstream == seen.upstream))
                if rows:
                    await connection.execute(insert(table), rows)
        except Exception as error:  # noqa: BLE001  each driver has errors of its own, and none may matter here
            self._failed(error)
        else:
            self._log.worked()

    def _failed(self, error: Exception) -> None:
        fault = fault_of(error)
        # what may pass is the database's own warning
        level = logging.DEBUG if fault.passes else logging.WARNING
        self._log.failed("identities of models cannot be kept in the database: %s (%s)", fault, error, level=level)
