"""The ASGI application around opened rooms."""

from starlette.types import ASGIApp

from llmproxy.app.routes import Dispatch
from llmproxy.app.state import AppState, WithState
from llmproxy.ingress.stack import surround


def create_app(state: AppState) -> ASGIApp:
    """Routes, surrounded by the layers of ``ingress``, with the rooms in reach."""
    app = surround(Dispatch(state.settings), state.settings, state.ids, state.accounts.ledger.add, state.in_flight)
    return WithState(app, state)
