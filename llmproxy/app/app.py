"""The ASGI application."""

from starlette.types import ASGIApp

from llmproxy.app.routes import route_table
from llmproxy.app.state import AppState, WithState
from llmproxy.middleware.stack import surround


def create_app(state: AppState) -> ASGIApp:
    """Routes, surrounded by the layers of ``ingress``, with the rooms in reach."""
    count, tracer = state.accounts.ledger.add, state.services.tracer
    app = surround(route_table(state.settings), state.settings, state.ids, count, state.in_flight, tracer)
    return WithState(app, state)
