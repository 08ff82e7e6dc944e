"""The operator's API: flush, statistics. Guarded."""
