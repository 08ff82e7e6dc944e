"""Identities of models: a model's name is not its weights. Pure."""

from collections.abc import Collection
from hashlib import sha256
from typing import Any

import orjson


def digest(facts: Any) -> str:
    """Hex sha256 of all that is known to stand behind a model's name, whatever order it is told in."""
    return sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def more_precise(identity: str, than: str) -> bool:
    """Whether an identity says all that another one does, and something that could not be told then."""
    return identity.startswith(f"{than}:")


def together(identities: Collection[str]) -> str:
    """The identity of a name that several servers have: theirs where they agree, else all of them as one."""
    most = {one for one in identities if not any(more_precise(other, one) for other in identities)}
    return next(iter(most)) if len(most) == 1 else digest(sorted(most))
