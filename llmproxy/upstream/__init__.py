"""The only room that knows the HTTP client: targets, their kinds, one attempt at a call."""
