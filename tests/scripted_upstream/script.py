"""What a request asks the scripted upstream to do: ``[script:cut after=3]`` anywhere in its body."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote_to_bytes

_DIRECTIVE = re.compile(rb"\[script:([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Script:
    """One request's instructions.

    ``fault`` names a row of ``faults.WITHIN`` or ``INSTEAD``, ``oddity`` one of ``oddities.ODDITIES``. ``after`` is how
    many frames of a stream go out before the fault. ``words`` is the answer's length, ``size`` pads it to about so many
    bytes. ``gate`` names a gate the answer waits at: right before a fault inside a stream, else after ``gate_after``
    frames, else before the head. ``status`` answers with an error whose body has the shape ``shape``, and ``retry``
    is its ``retry-after``. ``header`` is one more line of the head, its odd bytes
    percent-encoded. ``coding`` names a row of ``codings.CODINGS``, in which the answer comes whatever was asked for.
    ``times`` plays all this only to the first so many requests with the very same body.
    """

    fault: str = ""
    oddity: str = ""
    after: int = 3
    words: int = 5
    gate: str = ""
    gate_after: int = 0
    status: int = 200
    shape: str = "openai"
    size: int = 0
    retry: str = ""
    coding: str = ""
    header: str = ""
    times: int = 0

    @property
    def fields(self) -> list[tuple[str, str]]:
        """What ``header`` says."""
        name, _, value = unquote_to_bytes(self.header).decode("latin-1").partition(":")
        return [(name, value)] if name else []

    @classmethod
    def of(cls, body: bytes) -> Self:
        """The first directive in ``body``; a script of nothing special where there is none."""
        found = _DIRECTIVE.search(body)
        if found is None:
            return cls()
        options: dict[str, str] = {}
        for word in found.group(1).decode("ascii").split():
            name, equals, value = word.partition("=")
            options.update({name.replace("-", "_"): value} if equals else {"fault": name})
        numbers = {name: int(options.pop(name)) for name in _NUMBERS & options.keys()}
        texts = {name: options.pop(name) for name in _TEXTS & options.keys()}
        if options:
            raise ValueError(f"a script knows no {sorted(options)}")
        return cls(**texts, **numbers)  # type: ignore[arg-type]  # two dicts of checked names


_NUMBERS = {"after", "words", "gate_after", "status", "size", "times"}
_TEXTS = {"fault", "oddity", "gate", "shape", "retry", "coding", "header"}
