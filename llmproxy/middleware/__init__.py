"""What surrounds every request: id, clock, errors, identity, limits. Pure ASGI."""
