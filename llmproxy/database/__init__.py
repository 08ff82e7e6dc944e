"""Databases: engines, dialects, schema, reads, write-behind, paging. Owns no table."""
