"""Who used the proxy: users and sessions, with what they add up to."""

from starlette.requests import Request
from starlette.responses import Response

from llmproxy.admin.params import given, json_answer
from llmproxy.admin.state import state_of
from llmproxy.history.reader import HistoryReader
from llmproxy.wire.validation import query_limit

_MOST = 1_000


async def sessions(request: Request) -> Response:
    """``GET /api/sessions?limit=&cursor=&user_id=``, the last to be seen first."""
    found = given(request, ("limit", "cursor", "user_id"))
    limit = query_limit(found, 50, _MOST)
    return json_answer(await _reader(request).sessions(limit, found.get("cursor"), found.get("user_id")))


async def session(request: Request) -> Response:
    """``GET /api/sessions/{id}``, with the users who named it."""
    given(request, ())
    return json_answer(await _reader(request).session(request.path_params["id"]))


async def users(request: Request) -> Response:
    """``GET /api/users?limit=&cursor=``, the last to be seen first; "" are those who are unknown."""
    found = given(request, ("limit", "cursor"))
    return json_answer(await _reader(request).users(query_limit(found, 50, _MOST), found.get("cursor")))


async def user(request: Request) -> Response:
    """``GET /api/users/{id}``, with the user's sessions."""
    given(request, ())
    return json_answer(await _reader(request).user(request.path_params["id"]))


def _reader(request: Request) -> HistoryReader:
    state = state_of(request)
    state.settle()
    return state.history.reader
