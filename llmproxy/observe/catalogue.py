"""Every metric, declared once. ``docs/metrics.md`` is rendered from the names and texts below."""

from dataclasses import dataclass, field, fields

from llmproxy.observe.collectors import Counter, Gauge, Histogram, Series

#: seconds; from a hit inside the protocol to the prefill of a long prompt on a slow machine
DURATIONS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0),
)

# the conventions of OpenTelemetry for generative AI (1.41) say these bounds and labels; more bounds for slow machines
_CALL_SECONDS = tuple(0.01 * 2**power for power in range(16))
_FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0),
)
_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(float(4**power) for power in range(14))

_CALL = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")

#: the values of ``tier`` that mean the database
_IN_DATABASE = (("sql",),)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The metrics of one app. Label values are given in the order of declaration."""

    requests: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_requests_total",
            "Requests answered, by what the cache did for them and why. Those for health, metrics and the operator "
            "are in no metric of requests.",
            ("endpoint", "model", "cache", "reason", "status"),
        )
    )
    failed: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_requests_failed_total",
            "Requests that the proxy or the upstream failed: a status from 500 on, or a stream that broke off.",
            ("endpoint",),
        )
    )
    durations: Histogram = field(
        default_factory=lambda: Histogram(
            "llmproxy_request_duration_seconds",
            "From a request's arrival to the last byte of its answer.",
            ("endpoint", "cache"),
            DURATIONS,
        )
    )
    first_bytes: Histogram = field(
        default_factory=lambda: Histogram(
            "llmproxy_time_to_first_token_seconds",
            "From a request's arrival to the first byte of its answer's body.",
            ("endpoint", "cache"),
            DURATIONS,
        )
    )
    overheads: Histogram = field(
        default_factory=lambda: Histogram(
            "llmproxy_overhead_seconds",
            "A request's duration without the upstream's share.",
            ("endpoint",),
            DURATIONS,
        )
    )
    phases: Histogram = field(
        default_factory=lambda: Histogram(
            "llmproxy_phase_seconds", "Time in each phase of the life of a request.", ("phase",), DURATIONS
        )
    )
    in_flight: Gauge = field(
        default_factory=lambda: Gauge("llmproxy_requests_in_flight", "Requests being answered now.", ("endpoint",))
    )
    coalesced: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_coalesced_requests_total", "Requests that shared the upstream call of an identical one."
        )
    )
    upstream_errors: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_upstream_errors_total", "Calls to an upstream that failed.", ("kind",)
        )
    )
    upstream_up: Gauge = field(
        default_factory=lambda: Gauge(
            "llmproxy_upstream_up",
            "1 if the upstream answered last time, else 0.",
            ("upstream",),
        )
    )
    upstream_tokens: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_upstream_tokens_total",
            "Tokens that upstreams worked on, as they reported them.",
            ("type",),
        )
    )
    saved_seconds: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_saved_generation_seconds_total",
            "Upstream time that cached and shared answers saved: what their generation had taken.",
        )
    )
    saved_tokens: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_saved_tokens_total", "Tokens that cached and shared answers saved.", ("type",)
        )
    )
    entries: Gauge = field(
        default_factory=lambda: Gauge("llmproxy_cache_entries", "Answers kept.", ("tier",), shared_series=_IN_DATABASE)
    )
    bytes: Gauge = field(
        default_factory=lambda: Gauge(
            "llmproxy_cache_bytes", "Bytes of the answers kept.", ("tier",), shared_series=_IN_DATABASE
        )
    )
    evictions: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_cache_evictions_total", "Answers that left a tier, by reason.", ("tier", "reason")
        )
    )
    store_faults: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_store_faults_total",
            "Faults of a cache tier; requests go on without it.",
            ("tier", "kind"),
        )
    )
    limits: Gauge = field(
        default_factory=lambda: Gauge(
            "llmproxy_cache_limit_bytes", "Bytes that a tier may hold.", ("tier",), shared_series=_IN_DATABASE
        )
    )
    reclaimed: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_database_reclaimed_bytes_total", "Bytes given back to the file system by the cache's sweeps."
        )
    )
    database_bytes: Gauge = field(
        default_factory=lambda: Gauge(
            "llmproxy_database_bytes",
            "Bytes of the database; the log that SQLite writes beside it comes on top.",
            shared=True,
        )
    )
    database_limit: Gauge = field(
        default_factory=lambda: Gauge(
            "llmproxy_database_limit_bytes",
            "Bytes that cached answers and history may take together; jobs and files come on top.",
            shared=True,
        )
    )
    history_rows: Counter = field(
        default_factory=lambda: Counter("llmproxy_history_rows_total", "Rows of history written.")
    )
    history_lost: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_history_lost_total",
            "Rows of history that did not fit into the queue, or could not be written.",
        )
    )
    job_tries: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_job_tries_total",
            "Tries at items of jobs, by what came of them: completed, failed, again (another attempt follows), "
            "put-off (the model server or a receiver was not there; no attempt was lost), lost (the lease was).",
            ("kind", "step", "outcome"),
        )
    )
    job_items: Gauge = field(
        default_factory=lambda: Gauge(
            "llmproxy_job_items", "Items in the queue now, waiting and running.", ("status",), shared=True
        )
    )
    job_age: Gauge = field(
        default_factory=lambda: Gauge(
            "llmproxy_job_oldest_item_seconds",
            "How long the item has been due that has waited longest; 0 if none does.",
            shared=True,
        )
    )
    answers_lost: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_stored_answers_lost_total",
            "Answers that were delivered, but could not be kept for those who ask for them by their id.",
        )
    )
    performance_lost: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_performance_lost_total",
            "Minutes of an endpoint and model that `/api/performance` will not know: the database did not take them.",
        )
    )
    lag: Histogram = field(
        default_factory=lambda: Histogram(
            "llmproxy_event_loop_lag_seconds", "How late the event loop wakes those who sleep.", (), DURATIONS
        )
    )
    threads: Gauge = field(default_factory=lambda: Gauge("llmproxy_process_threads", "Threads of the process."))
    system_cpu: Gauge = field(
        default_factory=lambda: Gauge(
            "llmproxy_system_cpu_ratio",
            "Share of all processors' time that was spent, of the last seconds.",
        )
    )
    system_memory: Gauge = field(
        default_factory=lambda: Gauge(
            "llmproxy_system_memory_bytes",
            "Memory of the machine: all there is, and what is available.",
            ("state",),
        )
    )
    faults: Counter = field(
        default_factory=lambda: Counter(
            "llmproxy_observe_faults_total",
            "Failures to count, log, record or refresh; requests go on.",
            ("part",),
        )
    )
    build: Gauge = field(
        default_factory=lambda: Gauge(
            "llmproxy_build_info",
            "Always 1; the labels say what runs.",
            ("version", "python"),
        )
    )

    # upstream calls under the names of OpenTelemetry's conventions for generative AI (1.41), as Prometheus spells them:
    # they are shared with other gateways, so dashboards made for them show this one
    generation_seconds: Histogram = field(
        default_factory=lambda: Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Upstream calls, from sending the request to the end of the answer.",
            (*_CALL, "error_type"),
            _CALL_SECONDS,
        )
    )
    generation_tokens: Histogram = field(
        default_factory=lambda: Histogram(
            "gen_ai_client_token_usage", "Tokens of upstream calls.", (*_CALL, "gen_ai_token_type"), _TOKENS
        )
    )
    generation_first_tokens: Histogram = field(
        default_factory=lambda: Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From a request's arrival to the first event of an upstream's stream.",
            _CALL,
            _FIRST_TOKEN_SECONDS,
        )
    )
    generation_token_times: Histogram = field(
        default_factory=lambda: Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time between the tokens of an upstream's stream, after the first one.",
            _CALL,
            _TOKEN_SECONDS,
        )
    )

    def all(self) -> list[Series]:
        """Every metric, in the order of declaration."""
        return [getattr(self, each.name) for each in fields(self)]
