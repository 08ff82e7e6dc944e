"""Tasks: this project's own API."""
