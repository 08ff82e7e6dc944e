"""The vocabulary of headers, history rows, metric labels and log lines: one closed list of each."""

from enum import StrEnum


class CacheStatus(StrEnum):
    """How an answer relates to the cache: the value of ``X-Cache`` and of the metric label ``cache``."""

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


#: answered from a tier
HITS = frozenset({CacheStatus.HIT, CacheStatus.STALE})
#: answers that cost no generation of their own
SAVED = HITS | {CacheStatus.JOINED}
#: the hit rate is a share of these
LOOKED_UP = SAVED | {CacheStatus.MISS}
#: answers that an upstream worked on for this request alone
FETCHED = frozenset({CacheStatus.MISS, CacheStatus.BYPASS})


class Reason(StrEnum):
    """Why a hit, why not, why not stored. ``Cache-Status``'s ``detail``, and the metric label ``reason``."""

    #: the memory tier had it
    MEMORY = "memory"
    #: the SQL tier had it
    SQL = "sql"
    #: another tier had it
    TIER = "tier"
    #: every input of an embeddings request was known
    INPUTS = "inputs"
    #: no tier had it
    ABSENT = "absent"
    #: an entry was there but too old for this request
    EXPIRED = "expired"
    #: the request said ``no-cache``
    NO_CACHE = "no-cache"
    #: the request said ``no-store``
    NO_STORE = "no-store"
    #: the request said ``only-if-cached`` and nothing was
    ONLY_IF_CACHED = "only-if-cached"
    #: the upstream has refused the caller's credentials, or has not accepted them yet
    CREDENTIAL = "credential"
    #: caching is switched off by policy
    POLICY_OFF = "policy-off"
    #: the policy ``deterministic`` and neither temperature 0 nor a seed
    NOT_DETERMINISTIC = "not-deterministic"
    #: the policy ``opt-in`` and the request did not ask
    NOT_OPTED_IN = "not-opted-in"
    #: the request must run every time (a wall-clock limit, a background job)
    SIDE_EFFECT = "side-effect"
    #: the request only loads or unloads a model
    LOAD = "load"
    #: vectors in another form than lists of floats or base64 of float32s
    NOT_FLOAT32 = "not-float32"
    #: the identity of the model is not known
    IDENTITY_UNKNOWN = "identity-unknown"
    #: a member of the body is spelt in another case than the proxy reads, and the server takes it all the same
    FIELD_CASE = "field-case"
    #: no key can be made of the body; the upstream judges it
    UNREADABLE = "unreadable"
    #: the path is not cached
    PASS_THROUGH = "pass-through"
    #: the upstream answered with another status than 200
    STATUS = "status"
    #: the upstream's answer holds an error
    ERROR = "error"
    #: the upstream's answer does not parse
    MALFORMED = "malformed"
    #: the answer ended before its terminal event or finish reason
    INCOMPLETE = "incomplete"
    #: the upstream could not be reached, or broke off
    UPSTREAM_FAILED = "upstream-failed"
    #: the upstream was too slow
    TIMEOUT = "timeout"
    #: delivered, but larger than an entry may be
    TOO_LARGE = "too-large"
    #: delivered, but the model behind the name changed while it was made
    MODEL_CHANGED = "model-changed"
    #: every listener left before the end
    ABANDONED = "abandoned"
    #: the upstream was down; an entry past its lifetime was allowed
    UPSTREAM_DOWN = "upstream-down"
    #: complete and kept
    STORED = "stored"


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
