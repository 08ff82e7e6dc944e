"""The name that a caller gives a request, so that sent twice it is done once."""

import re

from llmproxy.jobs.job import Headers
from llmproxy.wire.errors import BadRequest

_KEY = re.compile(rb"[!-~]{1,255}")


def idempotency_key(headers: Headers) -> str | None:
    """The header ``Idempotency-Key``, None where there is none. Raises ``BadRequest``."""
    key = next((value for name, value in headers if name == b"idempotency-key"), None)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise BadRequest("Idempotency-Key takes 1 to 255 visible ASCII characters.", param="Idempotency-Key")
    return key.decode()
