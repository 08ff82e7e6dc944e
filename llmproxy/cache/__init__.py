"""May it be served, from which tier, and who fetches it."""
