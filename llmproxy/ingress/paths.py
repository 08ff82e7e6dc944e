"""Which paths need no caller's key: what orchestrators and Prometheus ask, the page, what the admin token guards."""

_OPEN = frozenset({"/health", "/ready", "/metrics", "/ui"})
#: the page's files: they hold no data
_PAGE = "/ui/"
_OPERATORS = frozenset(
    {"/api/history", "/api/cache/stats", "/api/performance", "/api/health", "/api/sessions", "/api/users"}
)
#: all below them is the operator's
_TREES = ("/admin/", "/api/history/", "/api/sessions/", "/api/users/")


def is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_PAGE)


def is_operators(path: str) -> bool:
    """Whether the path belongs to the operator: guarded by the admin token where one is set."""
    # whole paths: what only begins like one is passed through to the upstream, and needs a caller's key
    return path in _OPERATORS or path.startswith(_TREES)
