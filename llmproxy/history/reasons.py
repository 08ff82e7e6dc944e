"""What each reason means for whoever asks why: one sentence each. Pure."""

from collections.abc import Mapping

from llmproxy.wire.vocabulary import Reason

#: why the answer came from where it came
WHY: Mapping[Reason, str] = {
    Reason.MEMORY: "The entry was in the memory tier.",
    Reason.SQL: "The entry was in the SQL tier.",
    Reason.INPUTS: "Each input of the request was known.",
    Reason.ABSENT: "No tier had an entry with this key.",
    Reason.EXPIRED: "An entry with this key was there, but past its lifetime, or too old for what the request asked.",
    Reason.NO_CACHE: "The request said 'Cache-Control: no-cache': the cache was not asked, the new answer may be kept.",
    Reason.NO_STORE: "The request said 'Cache-Control: no-store': the cache was neither asked nor told.",
    Reason.ONLY_IF_CACHED: "The request said 'Cache-Control: only-if-cached', and nothing was stored for it.",
    Reason.CREDENTIAL: "The model server refused the caller's key, or has not accepted it yet.",
    Reason.POLICY_OFF: "Caching is switched off: LLMPROXY_CACHE_POLICY=off.",
    Reason.NOT_DETERMINISTIC: "LLMPROXY_CACHE_POLICY=deterministic caches only requests with temperature 0 or a seed.",
    Reason.NOT_OPTED_IN: "LLMPROXY_CACHE_POLICY=opt-in caches only requests that ask for it with a header.",
    Reason.SIDE_EFFECT: "The body asks for what must happen every time.",
    Reason.LOAD: "The request only loads or unloads a model.",
    Reason.NOT_FLOAT32: "The vectors come, or were asked for, in another form than floats or base64 of float32s.",
    Reason.UNREADABLE: "The body cannot be read as a request to this endpoint; the upstream judged it.",
    Reason.PASS_THROUGH: "The path is none of those that are cached.",
    Reason.UPSTREAM_DOWN: "The upstream was down, and the request allowed an entry past its lifetime.",
    Reason.STATUS: "The upstream answered with another status than 200.",
    Reason.ERROR: "The upstream's answer held an error.",
    Reason.MALFORMED: "The upstream's answer could not be understood.",
    Reason.INCOMPLETE: "The answer ended before it was complete.",
    Reason.UPSTREAM_FAILED: "The upstream could not be reached, or broke off.",
    Reason.TIMEOUT: "The upstream was too slow.",
    Reason.TOO_LARGE: "The answer was larger than LLMPROXY_CACHE_ENTRY_BYTES.",
    Reason.IDENTITY_UNKNOWN: "The model server does not tell what stands behind the model's name.",
    Reason.FIELD_CASE: "A member of the body is spelt in another case than the proxy reads, and the server takes it.",
    Reason.MODEL_CHANGED: "The model behind the name changed while the answer was made.",
    Reason.ABANDONED: "Everybody who waited for the answer left before it was complete.",
    Reason.STORED: "The answer was kept.",
}


def why(word: str) -> str:
    """The sentence of a reason as rows hold it; "" where there is none."""
    return WHY[Reason(word)] if word in set(Reason) else ""
