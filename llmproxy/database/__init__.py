"""Engines and their differences. Owns no table."""
