"""OpenAI's Files."""
