"""Which paths need no caller's key: what orchestrators and Prometheus ask, and what the admin token guards."""

_OPEN = frozenset({"/health", "/ready", "/metrics"})
_OPERATORS = frozenset({"/api/history", "/api/cache/stats"})


def is_open(path: str) -> bool:
    return path in _OPEN


def is_operators(path: str) -> bool:
    """Whether the path belongs to the operator: guarded by the admin token where one is set."""
    # whole paths: what only begins like one is passed through to the upstream, and needs a caller's key
    return path in _OPERATORS or path.startswith("/admin/")
