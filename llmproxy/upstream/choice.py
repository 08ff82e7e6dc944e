"""Which servers a request may go to. Pure."""

from collections.abc import Collection

from llmproxy.upstream.kinds import KINDS
from llmproxy.upstream.model_server import Server

_OWN_PATHS = tuple(kind.own_paths for kind in KINDS if kind.own_paths)


def eligible(servers: Collection[Server], path: str) -> list[Server]:
    """The servers for a path: where one kind calls it its own, that kind's only, or who may be of that kind."""
    if not path.startswith(_OWN_PATHS):
        return list(servers)
    own = [server for server in servers if (start := server.target.kind.own_paths) and path.startswith(start)]
    return own or [server for server in servers if not server.heard_of] or list(servers)


def candidates(servers: Collection[Server], model: str, path: str) -> list[Server]:
    """The servers for a model, [] where none of them has it.

    One that lists its models gets no request for one that it does not list, unless it is the only one. What names no
    model goes to the first that answers.
    """
    found = eligible(servers, path)
    if len(found) <= 1:
        return found
    if model:
        if listing := [server for server in found if server.lists(model)]:
            return listing
        found = [server for server in found if not server.lists_models]
    return [server for server in found if server.up][:1] or found[:1]
