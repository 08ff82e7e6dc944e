"""The words that say that an answer is done, for each dialect. Any other word says that it may have been cut short.

OpenAI, Anthropic and Ollama document their own; the others are what servers with the same shape send for the same
things: TGI, Mistral, SGLang, gateways that hand on their provider's word.
"""

#: ``finish_reason`` of chat and legacy completions
FINISH_REASONS = frozenset(
    {
        "content_filter",
        "end_turn",
        "eos",
        "eos_token",
        "function_call",
        "length",
        "max_tokens",
        "model_length",
        "stop",
        "stop_sequence",
        "tool_calls",
        "tool_use",
    }
)

#: ``stop_reason`` of messages
STOP_REASONS = frozenset(
    {
        "end_turn",
        "max_tokens",
        "model_context_window_exceeded",
        "pause_turn",
        "refusal",
        "stop_sequence",
        "tool_use",
    }
)

#: ``done_reason`` of Ollama's own API
DONE_REASONS = frozenset({"length", "stop", "tool_calls"})

#: ``incomplete_details.reason`` of Responses
INCOMPLETE_REASONS = frozenset({"content_filter", "max_output_tokens", "max_tokens"})


def says_done(word: object, words: frozenset[str]) -> bool:
    """Some servers write their words in capitals."""
    return isinstance(word, str) and word.lower() in words
