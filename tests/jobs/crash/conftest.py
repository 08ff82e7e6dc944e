"""A database that several processes share."""

from tests.databases import postgres

__all__ = ["postgres"]
