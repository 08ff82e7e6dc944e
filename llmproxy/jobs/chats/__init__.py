"""Chat completions that can be asked for again."""
