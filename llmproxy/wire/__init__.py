"""OpenAI's dialect and our vocabulary: frozen data and pure functions."""
