"""Responses and chat completions that can be asked for again, and Responses made in the background."""
