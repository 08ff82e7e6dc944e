"""PostgreSQL for the tests from outside."""

from tests.databases import postgres

__all__ = ["postgres"]
