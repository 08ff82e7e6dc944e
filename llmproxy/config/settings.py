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
        (), description="Host names, beside loopback ones, that requests may be addressed to. `*` allows all."
    )
    root: RootPage = Field(
        RootPage.PAGE,
        description="What a browser gets at `/`: `page`, a short page with links; `ui`, the page at `/ui`; `upstream`, "
        "the model server's own page. `/?upstream` is always the model server's; programs always get its answer.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Addresses and networks of reverse proxies whose `X-Forwarded-Host`, the name that a browser "
        "knows, is believed.",
    )
    cors_origins: Words = Field((), description="Origins of web pages that may call the proxy from a browser.")
    admin_token: Secret = Field(None, description="Bearer token for `/admin/*` and the statistics under `/api/*`.")
    api_keys: ApiKeys = Field(
        (), description="Keys that callers must present, each `name:key` or just the key. None: no key is asked for."
    )
    max_in_flight: int = Field(1024, ge=1, description="Requests in work at once; beyond it 429 with `retry-after`.")
    max_in_flight_per_caller: int = Field(0, ge=0, description="The same for each caller; 0 sets no limit.")
    max_body_bytes: int = Field(100 * MiB, ge=1, description="Largest request body that is read into memory.")
    max_header_bytes: int = Field(
        64 * 1024, ge=1024, description="Largest head of a request, its URL included; beyond it 431."
    )
    request_header_timeout: float = Field(30.0, gt=0, description="Seconds for a request's head to arrive; then 408.")
    request_body_timeout: float = Field(
        60.0, gt=0, description="Seconds between two bytes of a request's body; then 408."
    )
    response_write_timeout: float = Field(
        120.0, gt=0, description="Seconds in which a client reads nothing of its answer; then it is cut off."
    )
    keep_alive_timeout: float = Field(
        75.0, gt=0, description="Seconds after which an idle connection is closed. Longer than the clients' own."
    )
    shutdown_seconds: float = Field(
        10.0, ge=0, description="How long a stopping server may take: for running requests, and for writing what waits."
    )

    # Upstream
    upstream: BaseUrls = Field((), description="Base URLs of model servers. Unset: the usual local ports are probed.")
    require_upstream: bool = Field(
        False,
        description="Refuse to start while no model server answers. Otherwise the proxy starts and keeps looking.",
    )
    upstream_api_key: Secret = Field(
        None, description="Key sent upstream. Unset: the caller's own is forwarded, unless the proxy has API keys."
    )
    upstream_stream: UpstreamStream = Field(
        UpstreamStream.AUTO,
        description="`auto` sends plain requests as streams to servers that notice a cancelled call only "
        "on streams (llama.cpp) and puts the answer together; `as-asked` never does.",
    )
    connect_timeout: float = Field(5.0, gt=0, description="Seconds to connect to an upstream.")
    first_byte_timeout: float = Field(600.0, gt=0, description="Seconds until the upstream's first byte.")
    idle_timeout: float = Field(
        600.0,
        gt=0,
        description="Seconds between two bytes of an upstream's answer. What is passed through has no such limit.",
    )
    total_timeout: float = Field(0.0, ge=0, description="Seconds for a whole upstream call; 0 sets no limit.")
    identity_seconds: float = Field(
        5.0,
        gt=0,
        description="How old what a server says of its models may be when a cached answer rests on it.",
    )
    identity_wait: float = Field(
        0.25,
        ge=0,
        description="Seconds that a request waits at most for what a server says of its models.",
    )
    ping_seconds: float = Field(15.0, ge=0, description="Comment pings on waiting streams; 0 sends none.")
    head_seconds: float = Field(
        20.0, ge=0, description="How long a stream's status waits for the upstream's, before 200 is sent for pings."
    )

    # Cache
    cache_policy: CachePolicy = Field(
        CachePolicy.ALL, description="Which complete answers are cached: all, deterministic, opt-in, off."
    )
    cache_scope: CacheScope = Field(
        CacheScope.AUTO,
        description="Who shares answers: all callers, or each key its own. `auto`: each key its own if there are keys.",
    )
    cache_max_size: int = Field(
        1000, ge=0, validation_alias=_bare("CACHE_MAX_SIZE"), description="Entries in the memory tier."
    )
    cache_max_bytes: int = Field(256 * MiB, ge=0, description="Bytes in the memory tier.")
    cache_ttl_hours: float = Field(
        24.0, gt=0, validation_alias=_bare("CACHE_TTL_HOURS"), description="Lifetime of an entry in hours."
    )
    cache_stale_hours: float = Field(
        24.0, ge=0, description="How long entries are kept past their lifetime, for `max-stale` and `stale-if-error`."
    )
    cache_disk_bytes: int = Field(
        4 * GiB, ge=0, description="Bytes that the SQL tier takes in the database; 0: no such tier."
    )
    cache_entry_bytes: int = Field(16 * MiB, ge=1, description="Largest answer that is kept.")
    cache_compress_bytes: int = Field(
        1024, ge=0, description="Bodies of this size or more are compressed in the SQL tier."
    )
    cache_sweep_seconds: float = Field(30.0, gt=0, description="How often expired rows are looked for.")
    single_flight: bool = Field(True, description="Identical requests in flight share one upstream call.")
    replay: Replay = Field(Replay.FAST, description="How hits of streams are sent: at full speed or in their own time.")
    disconnect_grace: float = Field(
        2.0, ge=0, description="Seconds that an upstream call goes on after its last listener left."
    )
    on_disconnect: OnDisconnect = Field(
        OnDisconnect.CANCEL, description="What happens then: the call is cancelled, or finished and stored."
    )
    fast_path: bool = Field(True, description="Answer repeated identical requests inside the HTTP protocol.")

    # Database, history
    database_path: Path = Field(
        default_factory=default_database,
        validation_alias=_bare("DATABASE_PATH"),
        description="SQLite file. The default is in the user's data folder, or `data/llmproxy.db` if that exists.",
    )
    database_url: SecretStr | None = Field(
        None, validation_alias=_bare("DATABASE_URL"), description="Database URL, for PostgreSQL; wins over the path."
    )
    history: bool = Field(True, description="Keep a row for every exchange.")
    history_bodies: bool = Field(True, description="Keep request and response bodies in the history.")
    history_body_bytes: int = Field(256 * 1024, ge=0, description="A longer body is cut at this size in the history.")
    history_days: float = Field(30.0, gt=0, description="Age at which history rows are deleted.")
    history_bytes: int = Field(1 * GiB, ge=0, description="Bytes that the history takes in the database.")
    history_redact: Patterns = Field(
        (),
        description="What is removed from bodies before they are kept. Several in the environment: a JSON array.",
    )
    history_search: bool = Field(True, description="Index prompts and answers for full-text search.")
    history_queue: int = Field(20_000, ge=1, description="Rows that may wait to be written; more are counted as lost.")

    # Jobs
    jobs: bool = Field(True, description="Offer tasks, files, batches, stored and background Responses.")
    task_queue_workers: int = Field(
        4,
        ge=0,
        le=1024,
        validation_alias=_bare("TASK_QUEUE_WORKERS"),
        description="Calls of jobs in work at once in this process; 0 leaves them to `llmproxy worker`.",
    )
    job_beside_interactive: int = Field(
        0,
        ge=0,
        description="How many of them may run beside interactive requests. 0: one less than the model server has "
        "slots, and at least one.",
    )
    job_max_attempts: int = Field(5, ge=1, description="Attempts at each call of a job before it is failed.")
    job_lease_seconds: float = Field(
        15.0, ge=1, description="How long a worker that was lost keeps others from its calls. Renewed while it lives."
    )
    job_retention_days: float = Field(
        30.0, gt=0, description="Age at which finished jobs, their results and stored answers are deleted."
    )
    job_max_prompts: int = Field(10_000, ge=1, description="Prompts in one request to `/api/completions/batch`.")
    store_answers: bool = Field(
        True,
        description="Keep Responses (unless they say `store: false`) and chat completions with `store: true`, so that "
        "they can be asked for by their ids.",
    )
    instructions: Instructions = Field(
        INSTRUCTIONS, description="System prompts by `instruction_type`, a TOML table or JSON; beside the usual ones."
    )
    files_path: str = Field(
        "",
        description="Where files are kept: a folder, or an fsspec URL. Unset: beside the database.",
    )
    file_max_bytes: int = Field(512 * MiB, ge=1, description="Largest file that can be uploaded.")
    webhook_url: WebAddress = Field(
        "", description="URL that is told of each job's end, unless its request names another."
    )
    webhook_secret: SigningSecret = Field(
        None, description="Secret that signs webhooks (Standard Webhooks: `whsec_` and base64)."
    )
    webhook_hosts: Words = Field(
        (),
        description="Hosts that a request's `webhook_url` may name, each `host:port`, or `host` for the usual port. "
        "None: none may.",
    )

    # Logs, metrics
    log_level: LogLevel = Field(LogLevel.INFO, description="Least severe level that is logged.")
    log_format: LogFormat = Field(LogFormat.AUTO, description="`text`, `json`, or `auto`: text on a terminal.")
    worker_metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port on which `llmproxy worker` shows `/metrics` and `/health`; none by default, 0 any free one.",
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
