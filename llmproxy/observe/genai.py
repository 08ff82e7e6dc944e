"""Upstream calls under the names of OpenTelemetry's conventions for generative AI (1.41), as Prometheus spells them.

These names are shared with other gateways, so dashboards made for them show this one.
"""

from llmproxy.observe.collectors import Histogram, Series
from llmproxy.observe.names import Names
from llmproxy.wire.exchange import Exchange

#: our endpoints -> the conventions' operations; calls of others are no generation
OPERATIONS = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "ollama-chat": "chat",
    "completions": "text_completion",
    "ollama-generate": "text_completion",
    "embeddings": "embeddings",
    "ollama-embed": "embeddings",
    "ollama-embeddings": "embeddings",
    "rerank": "rerank",
}

#: the conventions' bounds, and more for slow machines
_CALL_SECONDS = tuple(0.01 * 2**power for power in range(16))
_FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0),
)
_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(float(4**power) for power in range(14))

_CALL = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")

#: the conventions' word for an error without a code
_OTHER_ERROR = "_OTHER"


class Generations:
    """Calls that an upstream worked on. Each series is a whole histogram, so ``models`` bounds them tightly."""

    def __init__(self, models: int = 20) -> None:
        self._models = Names(models)
        self._calls = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Upstream calls, from sending the request to the end of the answer.",
            (*_CALL, "error_type"),
            _CALL_SECONDS,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage", "Tokens of upstream calls.", (*_CALL, "gen_ai_token_type"), _TOKENS
        )
        self._first_tokens = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From a request's arrival to the first event of an upstream's stream.",
            _CALL,
            _FIRST_TOKEN_SECONDS,
        )
        self._token_times = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time between the tokens of an upstream's stream, after the first one.",
            _CALL,
            _TOKEN_SECONDS,
        )

    def count(self, observed: Exchange, provider: str) -> None:
        """Counts a request that had an upstream call to itself. ``provider`` is the upstream's kind."""
        operation = OPERATIONS.get(observed.endpoint)
        if operation is None or not observed.upstream:
            return
        call = (operation, provider, self._models.label(observed.model, proven=observed.status < 400))
        spent = observed.seconds if observed.upstream_seconds is None else observed.upstream_seconds
        error = _error_type(observed)
        self._calls.observe((*call, error), spent)
        if not error:
            self._count_answer(observed, call)

    def all(self) -> list[Series]:
        return [self._calls, self._tokens, self._first_tokens, self._token_times]

    def _count_answer(self, observed: Exchange, call: tuple[str, ...]) -> None:
        usage = observed.usage
        for kind, tokens in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            if tokens is not None and tokens >= 0:
                self._tokens.observe((*call, kind), tokens)
        first = observed.first_byte_seconds
        if not observed.stream or first is None:
            return
        self._first_tokens.observe(call, first)
        if usage.completion_tokens is not None and usage.completion_tokens > 1:
            rest = max(0.0, observed.seconds - first)
            self._token_times.observe(call, rest / (usage.completion_tokens - 1))


def _error_type(observed: Exchange) -> str:
    """The status, or another word where it does not tell; "" for a success, which is no label at all."""
    if observed.status >= 400:
        return str(observed.status)
    return _OTHER_ERROR if observed.error else ""
