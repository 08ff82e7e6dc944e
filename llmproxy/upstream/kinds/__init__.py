"""The kinds of upstream: a kind is one file and one row here."""

from llmproxy.upstream.kinds.llamacpp import LlamaCpp
from llmproxy.upstream.kinds.ollama import Ollama
from llmproxy.upstream.kinds.openai import OpenAI
from llmproxy.upstream.target import Kind

#: In the order in which a server is asked whether it is one. The last one takes whatever is left.
KINDS: tuple[Kind, ...] = (LlamaCpp(), Ollama(), OpenAI())

GENERIC: Kind = KINDS[-1]

BY_NAME = {kind.name: kind for kind in KINDS}
