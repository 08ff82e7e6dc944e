"""The vocabulary of headers, history rows, metric labels and log lines: one closed list of each."""

from enum import StrEnum
from typing import Self


class CacheStatus(StrEnum):
    """How an answer relates to the cache: the metric label ``cache``, and in capitals ``X-Cache``."""

    #: answered from a tier
    HIT = "hit"
    #: looked up, not there, fetched
    MISS = "miss"
    #: shared the upstream call of an identical request
    JOINED = "joined"
    #: not looked up, for a reason
    BYPASS = "bypass"
    #: answered from an entry past its lifetime, as the request allowed
    STALE = "stale"
    #: looked up, not there, and not fetched, as the request asked: a 504 that is no failure. ``X-Cache`` says MISS
    ONLY_IF_CACHED = "only-if-cached"


#: answered from a tier
HITS = frozenset({CacheStatus.HIT, CacheStatus.STALE})
#: answers that cost no generation of their own
SAVED = HITS | {CacheStatus.JOINED}
#: the hit rate is a share of these
LOOKED_UP = SAVED | {CacheStatus.MISS, CacheStatus.ONLY_IF_CACHED}
#: answers that an upstream worked on for this request alone
FETCHED = frozenset({CacheStatus.MISS, CacheStatus.BYPASS})


class Reason(StrEnum):
    """Why a hit, why not, why not stored. ``Cache-Status``'s ``detail``, and the metric label ``reason``.

    ``sentence`` explains it to the operator.
    """

    sentence: str

    def __new__(cls, value: str, sentence: str = "") -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

    MEMORY = "memory", "The entry was in the memory tier."
    SQL = "sql", "The entry was in the SQL tier."
    TIER = "tier", "The entry was in another tier."
    INPUTS = "inputs", "Each input of the request was known."
    ABSENT = "absent", "Nothing was cached for this request."
    EXPIRED = (
        "expired",
        "An entry with this key was there, but past its lifetime, or too old for what the request asked.",
    )
    NO_CACHE = (
        "no-cache",
        "The request said 'Cache-Control: no-cache': the cache was not asked, the new answer may be kept.",
    )
    NO_STORE = "no-store", "The request said 'Cache-Control: no-store': the cache was neither asked nor told."
    ONLY_IF_CACHED = (
        "only-if-cached",
        "The request said 'Cache-Control: only-if-cached', and nothing was stored for it.",
    )
    CREDENTIAL = "credential", "The model server refused the caller's key, or has not accepted it yet."
    POLICY_OFF = "policy-off", "Caching is switched off: LLMPROXY_CACHE_POLICY=off."
    NOT_DETERMINISTIC = (
        "not-deterministic",
        "LLMPROXY_CACHE_POLICY=deterministic caches only requests with temperature 0 or a seed.",
    )
    NOT_OPTED_IN = "not-opted-in", "LLMPROXY_CACHE_POLICY=opt-in caches only requests that ask for it with a header."
    SIDE_EFFECT = "side-effect", "The body asks for what must happen every time."
    LOAD = "load", "The request only loads or unloads a model."
    NOT_FLOAT32 = (
        "not-float32",
        "The vectors come, or were asked for, in another form than floats or base64 of float32s.",
    )
    IDENTITY_UNKNOWN = "identity-unknown", "The model server does not tell what stands behind the model's name."
    FIELD_CASE = (
        "field-case",
        "A member of the body is spelt in another case than the proxy reads, and the server takes it.",
    )
    UNREADABLE = "unreadable", "The body cannot be read as a request to this endpoint; the upstream judged it."
    PASS_THROUGH = "pass-through", "The path is none of those that are cached."
    STATUS = "status", "The upstream answered with another status than 200."
    ERROR = "error", "The upstream's answer held an error."
    MALFORMED = "malformed", "The upstream's answer could not be understood."
    INCOMPLETE = "incomplete", "The answer ended before it was complete."
    UPSTREAM_FAILED = "upstream-failed", "The upstream could not be reached, or broke off."
    TIMEOUT = "timeout", "The upstream was too slow."
    TOO_LARGE = "too-large", "The answer was larger than LLMPROXY_CACHE_ENTRY_BYTES."
    MODEL_CHANGED = "model-changed", "The model behind the name changed while the answer was made."
    ABANDONED = "abandoned", "Everybody who waited for the answer left before it was complete."
    UPSTREAM_DOWN = "upstream-down", "The upstream was down, and the request allowed an entry past its lifetime."
    STORED = "stored", "The answer was kept."


class Phase(StrEnum):
    """The phases of a request's life, in order: names of functions, log fields and histogram labels."""

    NAME = "name"
    WATCH = "watch"
    GUARD = "guard"
    IDENTIFY = "identify"
    LIMIT = "limit"
    READ = "read"
    ADMIT = "admit"
    KEY = "key"
    LOOK_UP = "look up"
    JOIN = "join"
    PICK = "pick"
    SEND = "send"
    TEE = "tee"
    SETTLE = "settle"
    STORE = "store"
    RECORD = "record"
    COUNT = "count"
