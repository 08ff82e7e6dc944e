"""A model server on real sockets that does what each request's script says, down to single bytes.

It answers chat, completions, Responses, messages, embeddings, rerank and Ollama's own paths with plausible
answers that are different at every call, misbehaves on demand, and remembers every visit.
"""

from tests.scripted_upstream.journal import Gate, Visit
from tests.scripted_upstream.upstream import ScriptedUpstream

__all__ = ["Gate", "ScriptedUpstream", "Visit"]
