"""Every setting of the program. ``docs/settings.md`` is rendered from the descriptions below."""

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, model_validator

from llmproxy.config.values import (
    INSTRUCTIONS,
    ApiKeys,
    BaseUrls,
    Instructions,
    Networks,
    Patterns,
    Secret,
    SigningSecret,
    WebAddress,
    Words,
    default_database,
)

MiB = 1024 * 1024
GiB = 1024 * MiB

_SQLITE = "sqlite+aiosqlite:///"


class CachePolicy(StrEnum):
    ALL = "all"
    DETERMINISTIC = "deterministic"
    OPT_IN = "opt-in"
    OFF = "off"


class CacheScope(StrEnum):
    AUTO = "auto"
    SHARED = "shared"
    KEY = "key"


class OnDisconnect(StrEnum):
    CANCEL = "cancel"
    FINISH = "finish"


class Replay(StrEnum):
    FAST = "fast"
    PACED = "paced"


class RootPage(StrEnum):
    PAGE = "page"
    UI = "ui"
    UPSTREAM = "upstream"


class LogFormat(StrEnum):
    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class UpstreamStream(StrEnum):
    AUTO = "auto"
    AS_ASKED = "as-asked"


def _bare(name: str) -> AliasChoices:
    """The setting also answers to its name without the prefix, as its users know it."""
    return AliasChoices(f"LLMPROXY_{name}", name, name.lower())


class Settings(BaseModel):
    """Effective settings. Built by ``config.load``: defaults < ``llmproxy.toml`` < environment < flags."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, validate_default=True, allow_inf_nan=False
    )

    # Listening
    host: str = Field("127.0.0.1", description="Address to listen on. Anything but loopback needs an admin token.")
    port: int = Field(4141, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: Words = Field(
        (),
        description="Host names, besides loopback ones, at which the proxy may be addressed (`Host` header). `*` "
        "allows all.",
    )
    root: RootPage = Field(
        RootPage.PAGE,
        description="What a browser gets at `/`: `page`, a short page with links; `ui`, the page at `/ui`; `upstream`, "
        "the model server's own page. `/?upstream` is always the model server's; programs always get its answer.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Addresses and networks of reverse proxies whose `X-Forwarded-Host`, the name that the "
        "browser uses, is trusted.",
    )
    cors_origins: Words = Field((), description="Origins of web pages that may call the proxy from a browser (CORS).")
    admin_token: Secret = Field(
        None,
        description="Bearer token for `/admin/*` and the statistics under `/api/*`. Required if the proxy "
        "listens on anything but loopback. Without it they are refused to requests through a reverse proxy.",
    )
    api_keys: ApiKeys = Field(
        (),
        description="API keys of the proxy, each `name:key` or just the key. Callers must present one of them. "
        "Unset: no key is needed.",
    )
    max_in_flight: int = Field(
        1024, ge=1, description="Concurrent requests; more are answered with 429 and `retry-after`."
    )
    max_in_flight_per_caller: int = Field(
        0, ge=0, description="Concurrent requests of each caller; more are answered with 429. 0: no limit."
    )
    max_body_bytes: int = Field(100 * MiB, ge=1, description="Maximum size of a request body that is read into memory.")
    max_header_bytes: int = Field(
        64 * 1024,
        ge=1024,
        description="Maximum size of a request's URL and headers together; larger ones are answered with 431.",
    )
    request_header_timeout: float = Field(
        30.0, gt=0, description="Seconds until a request's headers must have arrived; then 408."
    )
    request_body_timeout: float = Field(
        60.0, gt=0, description="Maximum seconds between two bytes of a request body; then 408."
    )
    response_write_timeout: float = Field(
        120.0, gt=0, description="Seconds after which a client that does not read its response is disconnected."
    )
    keep_alive_timeout: float = Field(
        75.0,
        gt=0,
        description="Seconds after which an idle client connection is closed. Should be longer than the clients' own.",
    )
    shutdown_seconds: float = Field(
        10.0,
        ge=0,
        description="Maximum seconds for a graceful shutdown: running requests end, and pending writes are written.",
    )

    # Upstream
    upstream: BaseUrls = Field(
        (),
        description="Base URLs of model servers. Unset: the usual local ports of Ollama, llama.cpp, LM Studio "
        "and vLLM are probed.",
    )
    require_upstream: bool = Field(
        False,
        description="Refuse to start while no model server answers. Otherwise the proxy starts and keeps looking.",
    )
    upstream_api_key: Secret = Field(
        None,
        description="API key sent to the model servers. Unset: the caller's own is forwarded, unless the proxy "
        "has API keys itself.",
    )
    upstream_stream: UpstreamStream = Field(
        UpstreamStream.AUTO,
        description="`auto` requests a stream also for a plain request, and puts the answer together, where the "
        "model server notices a cancelled request only while it streams (llama.cpp); `as-asked` "
        "never does.",
    )
    connect_timeout: float = Field(5.0, gt=0, description="Seconds to connect to a model server.")
    first_byte_timeout: float = Field(
        600.0, gt=0, description="Seconds until the first byte of a model server's answer."
    )
    idle_timeout: float = Field(
        600.0,
        gt=0,
        description="Maximum seconds between two bytes of a model server's answer. Requests that are passed "
        "through have no such limit.",
    )
    total_timeout: float = Field(
        0.0, ge=0, description="Maximum seconds for a whole request to a model server; 0: no limit."
    )
    identity_seconds: float = Field(
        5.0,
        gt=0,
        description="Maximum age, in seconds, of what is known about a model (its digest or settings) when a "
        "cached answer is served.",
    )
    identity_wait: float = Field(
        0.25,
        ge=0,
        description="Maximum seconds for which a request waits until the model server has said again which model "
        "it serves.",
    )
    ping_seconds: float = Field(
        15.0, ge=0, description="Seconds between comments that keep waiting streams alive; 0: none."
    )
    head_seconds: float = Field(
        20.0,
        ge=0,
        description="Seconds for which a stream's response waits for the model server's status; after that it "
        "begins with 200, so that pings can be sent.",
    )

    # Cache
    cache_policy: CachePolicy = Field(
        CachePolicy.ALL,
        description="Which complete answers are cached: `all`; `deterministic`, those to requests with "
        "temperature 0 or a seed; `opt-in`, those to requests with a caching header; `off`, none.",
    )
    cache_scope: CacheScope = Field(
        CacheScope.AUTO,
        description="Who shares cached answers: `shared`, all callers; `key`, only requests with the same API "
        "key; `auto`, `key` if the proxy has API keys, else `shared`.",
    )
    cache_max_size: int = Field(
        1000,
        ge=0,
        validation_alias=_bare("CACHE_MAX_SIZE"),
        description="Maximum number of entries in the memory tier.",
    )
    cache_max_bytes: int = Field(256 * MiB, ge=0, description="Maximum size of the memory tier.")
    cache_ttl_hours: float = Field(
        24.0,
        gt=0,
        validation_alias=_bare("CACHE_TTL_HOURS"),
        description="Lifetime of a cached answer (TTL), in hours.",
    )
    cache_stale_hours: float = Field(
        24.0,
        ge=0,
        description="Hours for which expired answers are kept, for requests with `max-stale` or `stale-if-error`.",
    )
    cache_disk_bytes: int = Field(
        4 * GiB, ge=0, description="Maximum size of the SQL tier in the database; 0: no SQL tier."
    )
    cache_entry_bytes: int = Field(16 * MiB, ge=1, description="Maximum size of an answer that is cached.")
    cache_compress_bytes: int = Field(
        1024, ge=0, description="Answers of this size or more are compressed in the SQL tier."
    )
    cache_sweep_seconds: float = Field(30.0, gt=0, description="Seconds between two clean-ups of expired answers.")
    single_flight: bool = Field(
        True, description="Identical requests at the same time share one request to the model server."
    )
    replay: Replay = Field(
        Replay.FAST,
        description="How a cached stream is sent: `fast`, as fast as the client reads; `paced`, with its "
        "original timing.",
    )
    disconnect_grace: float = Field(
        2.0,
        ge=0,
        description="Seconds for which a request to a model server goes on after the last client that waited for "
        "it has disconnected.",
    )
    on_disconnect: OnDisconnect = Field(
        OnDisconnect.CANCEL,
        description="What happens after these seconds: the request to the model server is cancelled (`cancel`), "
        "or finished and its answer cached (`finish`).",
    )
    fast_path: bool = Field(
        True, description="Answer repeated identical requests directly in the HTTP protocol, before they are parsed."
    )

    # Database, history
    database_path: Path = Field(
        default_factory=default_database,
        validation_alias=_bare("DATABASE_PATH"),
        description="SQLite file. The default is in the user's data folder, or `data/llmproxy.db` if that exists.",
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias=_bare("DATABASE_URL"),
        description="Database URL, for PostgreSQL; wins over `database_path`.",
    )
    history: bool = Field(True, description="Record every request in the history.")
    history_bodies: bool = Field(
        True,
        description="Keep request and response bodies in the history, and show the beginning of the question in "
        "the log on a terminal.",
    )
    history_body_bytes: int = Field(
        256 * 1024, ge=0, description="Maximum size of a body in the history; a longer one is cut."
    )
    history_days: float = Field(30.0, gt=0, description="Days after which history rows are deleted.")
    history_bytes: int = Field(
        1 * GiB, ge=0, description="Maximum size of the history in the database; the oldest rows are deleted first."
    )
    history_redact: Patterns = Field(
        (),
        description="Regular expressions for what is removed from bodies before they are kept. Several in the "
        "environment: a JSON array.",
    )
    history_search: bool = Field(True, description="Index prompts and answers for full-text search.")
    history_queue: int = Field(
        20_000,
        ge=1,
        description="Maximum number of history rows that wait to be written; more are dropped and counted.",
    )

    # Jobs
    jobs: bool = Field(
        True, description="Offer background work: tasks, files, batches, stored and background Responses."
    )
    task_queue_workers: int = Field(
        4,
        ge=0,
        le=1024,
        validation_alias=_bare("TASK_QUEUE_WORKERS"),
        description="Maximum number of concurrent background requests in this process; 0: all are left to "
        "`llmproxy worker`.",
    )
    job_beside_interactive: int = Field(
        0,
        ge=0,
        description="Maximum number of background requests while interactive ones run. 0: one less than the "
        "model server has slots, and at least one.",
    )
    job_max_attempts: int = Field(5, ge=1, description="Attempts at each request of a job before it counts as failed.")
    job_lease_seconds: float = Field(
        15.0,
        ge=1,
        description="Seconds after which the requests of a worker that has crashed are taken over by others.",
    )
    job_retention_days: float = Field(
        30.0, gt=0, description="Days after which finished jobs, their results and stored answers are deleted."
    )
    job_max_prompts: int = Field(
        10_000, ge=1, description="Maximum number of prompts in one request to `/api/completions/batch`."
    )
    store_answers: bool = Field(
        True,
        description="Keep Responses (unless they say `store: false`) and chat completions with `store: true`, so "
        "that they can be retrieved by id.",
    )
    instructions: Instructions = Field(
        INSTRUCTIONS,
        description="System prompts by `instruction_type`, a TOML table or a JSON object. They are added to the "
        "built-in ones or replace them.",
    )
    files_path: str = Field(
        "",
        description="Where uploaded files and batch results are kept: a folder, or an fsspec URL. Unset: beside "
        "the database.",
    )
    file_max_bytes: int = Field(512 * MiB, ge=1, description="Maximum size of an uploaded file.")
    webhook_url: WebAddress = Field(
        "", description="URL that is notified when a job ends, unless its request names another."
    )
    webhook_secret: SigningSecret = Field(
        None, description="Secret that signs webhooks (Standard Webhooks: `whsec_` and base64)."
    )
    webhook_hosts: Words = Field(
        (),
        description="Hosts that a request's `webhook_url` may name, each `host:port`, or `host` for the scheme's "
        "usual port. Unset: none.",
    )

    # Logs, metrics
    log_level: LogLevel = Field(LogLevel.INFO, description="Least severe level that is logged.")
    log_format: LogFormat = Field(
        LogFormat.AUTO, description="`text`, `json`, or `auto`: text on a terminal, JSON elsewhere."
    )
    worker_metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port on which `llmproxy worker` serves `/metrics` and `/health`. Unset: none; 0: a free one.",
    )

    @model_validator(mode="after")
    def _check_access(self) -> Self:
        if not self.loopback and self.admin_token is None:
            raise ValueError(
                f"listening on {self.host} needs LLMPROXY_ADMIN_TOKEN, because others can reach /admin there"
            )
        return self

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    def local_url(self, port: int | None = None) -> str:
        """The URL at which this machine reaches a proxy with these settings. ``port`` is the one that it got if it took
        a free one."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port if port is None else port}"

    @property
    def database(self) -> str:
        """The database's URL for SQLAlchemy's async engines."""
        if self.database_url is not None:
            url = self.database_url.get_secret_value()
            for short in ("postgres://", "postgresql://"):
                if url.startswith(short):
                    return "postgresql+asyncpg://" + url.removeprefix(short)
            return url.replace("sqlite:///", _SQLITE, 1) if url.startswith("sqlite:///") else url
        return f"{_SQLITE}{self.database_path}"

    @property
    def sqlite_file(self) -> Path | None:
        """The file of an SQLite database, None for another kind of database."""
        file = self.database.removeprefix(_SQLITE).partition("?")[0]
        return Path(file) if self.database.startswith(_SQLITE) else None

    @property
    def ttl_seconds(self) -> float:
        return self.cache_ttl_hours * 3600.0

    @property
    def by_key(self) -> bool:
        """Whether cached answers are separated by caller."""
        return self.cache_scope is CacheScope.KEY or (self.cache_scope is CacheScope.AUTO and bool(self.api_keys))

    @property
    def forwards_credentials(self) -> bool:
        """Whether what callers present is sent on to the upstream."""
        return self.upstream_api_key is None and not self.api_keys
