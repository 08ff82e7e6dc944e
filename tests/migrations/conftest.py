"""Databases here begin empty: how they get their schema is what is tested."""

from tests.databases import empty_database_url as database_url

__all__ = ["database_url"]
