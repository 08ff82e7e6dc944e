"""``llmproxy demo``: a small real model, the proxy in front of it, and a tour of what the proxy does."""
