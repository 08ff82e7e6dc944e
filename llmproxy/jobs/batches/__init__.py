"""OpenAI's Batches."""
