"""Puts the rooms together; the only room that knows all the others."""

from llmproxy.app.app import create_app

__all__ = ["create_app"]
