"""llmproxy: a drop-in OpenAI-compatible caching proxy for local models."""

__version__ = "0.1.0"
