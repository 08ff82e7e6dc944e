"""The dashboard of requests: how fast and how well they are answered, and what the cache saves."""

from deploy.grafana.panels import Board, Figure, Graph, Query
from deploy.grafana.queries import ASKED, CHOSEN, HITS, KEPT, LOOKED_UP, in_range, quantiles, rate, share

REQUESTS = Board(
    "llmproxy-requests",
    "llmproxy: requests",
    "How fast and how well requests are answered, and what the cache saves.",
    (
        (
            "Now",
            (
                Figure("Requests", "To models, in a second.", "reqps", Query(rate("llmproxy_requests_total", ASKED))),
                Figure(
                    "Hit rate",
                    "Of the requests that were looked up.",
                    "percentunit",
                    Query(share(rate("llmproxy_requests_total", HITS), rate("llmproxy_requests_total", LOOKED_UP))),
                ),
                Figure(
                    "Errors",
                    "Requests that the proxy or a model server failed, streams that broke off included.",
                    "percentunit",
                    Query(
                        share(
                            f"({rate('llmproxy_requests_failed_total', ASKED)} or vector(0))",
                            rate("llmproxy_requests_total", ASKED),
                        )
                    ),
                ),
                Figure(
                    "In flight",
                    "Requests being answered now; what is passed through is not counted.",
                    "none",
                    # a scrape is in flight itself, as one of the endpoint "other"
                    Query(f"sum(llmproxy_requests_in_flight{{{KEPT}}})"),
                ),
                Figure(
                    "Upstream time saved",
                    "In the time shown: what the generation of cached and shared answers had taken.",
                    "s",
                    Query(in_range("llmproxy_saved_generation_seconds_total")),
                ),
                Figure(
                    "Tokens saved",
                    "In the time shown, of prompts and answers.",
                    "short",
                    Query(in_range("llmproxy_saved_tokens_total")),
                ),
            ),
        ),
        (
            "Requests",
            (
                Graph(
                    "By what the cache did",
                    "Hits cost no generation; joined ones shared another's.",
                    "reqps",
                    (Query(rate("llmproxy_requests_total", ASKED, "cache"), "{{cache}}"),),
                    stacked=True,
                ),
                Graph(
                    "By model",
                    "Models beyond the first hundred are `other`.",
                    "reqps",
                    (Query(rate("llmproxy_requests_total", ASKED, "model"), "{{model}}"),),
                    stacked=True,
                ),
                Graph(
                    "Why not cached, or not found",
                    "The words of Cache-Status.",
                    "reqps",
                    (
                        Query(
                            rate("llmproxy_requests_total", f'{CHOSEN}, cache=~"miss|bypass|only-if-cached"', "reason"),
                            "{{reason}}",
                        ),
                    ),
                    stacked=True,
                ),
                Graph(
                    "Failed",
                    "Requests by endpoint, and calls to model servers by what went wrong.",
                    "reqps",
                    (
                        Query(rate("llmproxy_requests_failed_total", by="endpoint"), "{{endpoint}}", may_be_empty=True),
                        Query(rate("llmproxy_upstream_errors_total", by="kind"), "call: {{kind}}", may_be_empty=True),
                    ),
                ),
            ),
        ),
        (
            "Time",
            (
                Graph("Hits", "From arrival to last byte.", "s", quantiles("llmproxy_request_duration_seconds", HITS)),
                Graph(
                    "Misses",
                    "From arrival to last byte; the model server's time is in it.",
                    "s",
                    quantiles("llmproxy_request_duration_seconds", f'{CHOSEN}, cache="miss"'),
                ),
                Graph(
                    "What the proxy adds",
                    "Duration without the model server's share.",
                    "s",
                    quantiles("llmproxy_overhead_seconds", ASKED),
                ),
                Graph(
                    "First token",
                    "Of streams from model servers.",
                    "s",
                    quantiles("gen_ai_server_time_to_first_token_seconds"),
                ),
                Graph(
                    "Time per token",
                    "Between the tokens of a stream, after the first.",
                    "s",
                    quantiles("gen_ai_server_time_per_output_token_seconds"),
                ),
                Graph(
                    "Upstream calls by model",
                    "What one in 20 takes longer than.",
                    "s",
                    (
                        Query(
                            "histogram_quantile(0.95, "
                            + rate("gen_ai_client_operation_duration_seconds_bucket", by="le, gen_ai_request_model")
                            + ")",
                            "{{gen_ai_request_model}}",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Tokens",
            (
                Graph(
                    "Generated",
                    "By model servers, in a second.",
                    "short",
                    (Query(rate("llmproxy_upstream_tokens_total", by="type"), "{{type}}"),),
                ),
                Graph(
                    "Saved",
                    "By cached and shared answers, in a second.",
                    "short",
                    (Query(rate("llmproxy_saved_tokens_total", by="type"), "{{type}}"),),
                ),
                Graph(
                    "Saved upstream time",
                    "Seconds of generation for each second that passes: 1 is one model server kept free.",
                    "none",
                    (Query(rate("llmproxy_saved_generation_seconds_total"), "saved"),),
                ),
            ),
        ),
    ),
)
