"""What happened, kept: one row for every exchange, written behind."""
