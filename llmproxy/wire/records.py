"""Records: dataclasses that nobody changes, made by the dozen for each request. Pure."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(made: type[T]) -> type[T]:
    """A dataclass with slots whose instances are not to be changed: mypy sees to that.

    Python's own ``frozen`` sets each field by a call, which makes an instance five times as dear.
    """
    return dataclass(slots=True, unsafe_hash=True)(made)
