"""Identities of models: a model's name is not its weights. Pure."""

from hashlib import sha256
from typing import Any

import orjson


def digest(facts: Any) -> str:
    """Hex sha256 of all that is known to stand behind a model's name, whatever order it is told in."""
    return sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()
