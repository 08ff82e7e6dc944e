"""The dashboard of the program: model servers, cache, database, jobs, and what the processes use."""

from deploy.grafana.panels import Board, Graph, Query
from deploy.grafana.queries import CHOSEN, quantiles, rate, share

PROGRAM = Board(
    "llmproxy-program",
    "llmproxy: program",
    "Model servers, cache, database, jobs, and what the processes use.",
    (
        (
            "Parts",
            (
                Graph(
                    "Model servers",
                    "1 where one answered every process that asked it last.",
                    "none",
                    (Query(f"min by (upstream) (llmproxy_upstream_up{{{CHOSEN}}})", "{{upstream}}"),),
                ),
                Graph(
                    "Store faults",
                    "In a second. Requests go on without what the tier keeps.",
                    "cps",
                    (
                        Query(
                            rate("llmproxy_store_faults_total", by="tier, kind"),
                            "{{tier}} {{kind}}",
                            may_be_empty=True,
                        ),
                    ),
                ),
                Graph(
                    "Lost",
                    "In a second: what history, metrics, performance and those who ask by an id do not get to know.",
                    "cps",
                    (
                        Query(rate("llmproxy_history_lost_total"), "history"),
                        Query(rate("llmproxy_performance_lost_total"), "performance"),
                        Query(rate("llmproxy_stored_answers_lost_total"), "stored answers"),
                        Query(rate("llmproxy_observe_faults_total", by="part"), "{{part}}", may_be_empty=True),
                    ),
                ),
            ),
        ),
        (
            "Cache and database",
            (
                Graph(
                    "Entries",
                    "Each process has a memory tier; the SQL tier is everybody's.",
                    "short",
                    (
                        Query(f'sum(llmproxy_cache_entries{{{CHOSEN}, tier="memory"}})', "memory"),
                        Query(f'max(llmproxy_cache_entries{{{CHOSEN}, tier="sql"}})', "sql"),
                    ),
                ),
                Graph(
                    "Bytes",
                    "Answers kept, and the whole database against what it may take.",
                    "bytes",
                    (
                        Query(f'sum(llmproxy_cache_bytes{{{CHOSEN}, tier="memory"}})', "memory"),
                        Query(f'max(llmproxy_cache_bytes{{{CHOSEN}, tier="sql"}})', "sql"),
                        Query(f"max(llmproxy_database_bytes{{{CHOSEN}}})", "database"),
                        Query(f"max(llmproxy_database_limit_bytes{{{CHOSEN}}})", "limit"),
                    ),
                ),
                Graph(
                    "Evictions",
                    "Answers that left a tier in a second, by reason.",
                    "cps",
                    (
                        Query(
                            rate("llmproxy_cache_evictions_total", by="tier, reason"),
                            "{{tier}} {{reason}}",
                            may_be_empty=True,
                        ),
                    ),
                ),
            ),
        ),
        (
            "Jobs",
            (
                Graph(
                    "Items",
                    "Waiting and running; every process says the same.",
                    "short",
                    (Query(f"max by (status) (llmproxy_job_items{{{CHOSEN}}})", "{{status}}"),),
                ),
                Graph(
                    "Oldest item",
                    "How long it has been due.",
                    "s",
                    (Query(f"max(llmproxy_job_oldest_item_seconds{{{CHOSEN}}})", "oldest"),),
                ),
                Graph(
                    "Tries",
                    "In a second, by what came of them.",
                    "cps",
                    (Query(rate("llmproxy_job_tries_total", by="outcome"), "{{outcome}}", may_be_empty=True),),
                ),
            ),
        ),
        (
            "Processes",
            (
                Graph(
                    "Processors",
                    "1 is one processor, busy.",
                    "none",
                    (
                        Query(
                            f'rate(process_cpu_seconds_total{{{CHOSEN}, job="llmproxy"}}[$__rate_interval])',
                            "{{instance}}",
                        ),
                        Query(f"max(llmproxy_system_cpu_ratio{{{CHOSEN}}})", "machine, share of all"),
                    ),
                ),
                Graph(
                    "Memory",
                    "Held by each process.",
                    "bytes",
                    (Query(f'process_resident_memory_bytes{{{CHOSEN}, job="llmproxy"}}', "{{instance}}"),),
                ),
                Graph(
                    "Files and threads",
                    "Open files include connections.",
                    "short",
                    (
                        Query(f'process_open_fds{{{CHOSEN}, job="llmproxy"}}', "files {{instance}}"),
                        Query(f"llmproxy_process_threads{{{CHOSEN}}}", "threads {{instance}}"),
                    ),
                ),
                Graph(
                    "Event loop lag",
                    "What every request waits for beside its own work.",
                    "s",
                    quantiles("llmproxy_event_loop_lag_seconds"),
                ),
                Graph(
                    "Phases",
                    "Where a request's time goes: mean seconds in each phase of its life.",
                    "s",
                    (
                        Query(
                            share(
                                rate("llmproxy_phase_seconds_sum", by="phase"),
                                rate("llmproxy_phase_seconds_count", by="phase"),
                            ),
                            "{{phase}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
