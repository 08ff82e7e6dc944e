"""An upstream's answer, judged: complete and kept, or not, always with a reason."""

import time
from array import array
from dataclasses import replace
from itertools import accumulate

from llmproxy.cache.entry import Entry
from llmproxy.config.settings import Settings
from llmproxy.proxy.broadcast import BroadcastBuffer
from llmproxy.proxy.offload import INLINE_BYTES, offload
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Fetched, Outcome, is_renderable
from llmproxy.upstream.headers import coding_of, kept_headers
from llmproxy.upstream.target import Adapted, Reply
from llmproxy.wire.dialect import Lossy
from llmproxy.wire.documents import Document, Malformed, dump
from llmproxy.wire.errors import UpstreamBroke, UpstreamFault
from llmproxy.wire.formats.chunks import DONE
from llmproxy.wire.headers import content_type
from llmproxy.wire.vocabulary import Reason

_ANSWERED = 200
#: in a frame that tells the tokens of an answer, or that there are none to tell
_USAGE = b'"usage"'


class AnswerRecorder:
    """One upstream answer under way: cuts a stream into frames, mends them, watches for its end."""

    def __init__(
        self,
        request: CacheableRequest,
        key: bytes | None,
        scope: str,
        buffer: BroadcastBuffer[Outcome],
        adapted: Adapted,
        reply: Reply,
        settings: Settings,
    ) -> None:
        """``key`` is the entry's, None for an answer that is not to be kept as it is."""
        self.request = request
        self.buffer = buffer
        self.key = key
        self.scope = scope
        self.settings = settings
        #: what is kept with the answer
        self.headers = (*kept_headers(reply.headers), *coding_of(reply.headers))
        #: whether it comes in a content coding that is not known here
        self.is_coded = bool(coding_of(reply.headers))
        #: whether it is an answer at all: not a redirect, nor word of work that was only accepted
        self.is_answer = reply.status == _ANSWERED
        #: as the upstream named it, empty if it did not
        self.content_type = content_type(reply.headers)
        #: whether the answer comes as a stream: first as it was asked for, then as it came
        self.framed = adapted.stream
        #: whether the other form may be made of it at all
        self.both = adapted.both
        #: whether the stream's terminal event has been seen
        self.complete = False
        #: whether it ended without that, and where its body did not say that it would end
        self.loose = False
        self._dialect = request.endpoint.dialect
        self._splitter = self._dialect.splitter()
        self._repair = adapted.repair

    async def take(self, chunk: bytes) -> list[bytes]:
        """The frames that this chunk completes. Raises ``UpstreamFault`` for an error inside the stream."""
        splitter = self._splitter
        try:
            if len(chunk) + splitter.waiting <= INLINE_BYTES:
                frames = splitter.feed(chunk)
            else:
                # a frame of millions of lines is cut out all at once
                frames = await offload(len(chunk) + splitter.waiting, splitter.feed, chunk)
        except Malformed as error:
            raise UpstreamBroke(f"The upstream's stream is malformed: {error}") from error
        return self._judged(frames)

    async def close(self, *, delimited: bool) -> list[bytes]:
        """The body is over. The frames that only lacked their last newlines. ``delimited``: whether it said that it
        would end here.

        Raises ``UpstreamBroke`` where the answer is not over, ``UpstreamFault``.
        """
        waiting = self._splitter.waiting
        frames = self._judged(await offload(waiting, self._splitter.finish))
        rest = (await offload(waiting, self._splitter.rest))[:200].decode("utf-8", "replace").strip()
        self.loose = not self.complete and not delimited
        if self._repair is not None and not self.complete and not rest:
            # what is made of another endpoint's stream ends with that one, which may not have said so
            frames += self._judged([DONE])
        if not self.complete and (rest or not self._dialect.finished([*self.buffer.frames, *frames])):
            raise UpstreamBroke(
                "The upstream ended its stream before the answer was complete"
                + (f"; its last words: {rest!r}." if rest else ".")
            )
        return frames

    def _judged(self, frames: list[bytes]) -> list[bytes]:
        if self._repair is not None:
            # an error is told as the server told it
            faulty = next((place for place, frame in enumerate(frames) if self._dialect.fault(frame)), len(frames))
            mended = [mended for frame in frames[:faulty] for mended in self._repair(frame)]
            frames = [*mended, *frames[faulty:]]
        for index, frame in enumerate(frames):
            if (fault := self._dialect.fault(frame)) is not None:
                self.buffer.add(frames[:index])
                raise UpstreamFault(fault.error, fault.frame, fault.request_id)
            if self._dialect.terminal(frame):
                self.complete = True
                return frames[: index + 1]
        return frames

    def lacks(self, document: Document) -> bool:
        """Whether choices that were asked for may have been cut off before they began: a stream that says that it is
        over may have fewer, as servers without ``n`` give."""
        choices = document.get("choices")
        return (
            self.framed
            and not self.complete
            and isinstance(choices, list)
            and len(choices) < self.request.parsed.choices
        )

    @property
    def answer_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers of an answer that its endpoint knows: with its content type if that is one of several."""
        if self.framed or self._dialect.document_type or not self.content_type:
            return self.headers
        return ((b"content-type", self.content_type), *self.headers)

    @property
    def seconds(self) -> float:
        """How long the upstream has worked."""
        buffer = self.buffer
        return buffer.millis[-1] / 1000 if buffer.millis else 0.0


def settle_frames(recorder: AnswerRecorder) -> Fetched:
    """A stream that came to its end. One that is no strict JSON was handed on, but there is no plain answer to it."""
    buffer, dialect = recorder.buffer, recorder.request.endpoint.dialect
    if buffer.overflowed:
        return Fetched(b"", Reason.TOO_LARGE, seconds=recorder.seconds, headers=recorder.headers)
    both = recorder.both
    try:
        document = dialect.assemble(buffer.frames)
    except Lossy as lossy:
        document, both = lossy.document, False
    except Malformed:
        return _unkept(recorder, b"")
    try:
        body = dump(document)
    except RecursionError:
        return _unkept(recorder, b"")
    return _fetched_result(recorder, body, document, tuple(buffer.frames), both)


def settle_document(recorder: AnswerRecorder, body: bytes) -> Fetched:
    """A plain answer, read to its end. What is none, a text or nothing at all, is given as it came."""
    if recorder.buffer.overflowed:
        return replace(_unkept(recorder, b""), reason=Reason.TOO_LARGE, type=recorder.content_type)
    document = recorder.request.endpoint.dialect.read_answer(body, recorder.content_type)
    if document is None:
        return replace(_unkept(recorder, body), type=recorder.content_type)
    both = recorder.both and recorder.request.endpoint.streams
    if both and len(body) > INLINE_BYTES:
        # of a smaller one it is found out when somebody wants it
        both = is_renderable(recorder.request.endpoint.dialect, document)
    return _fetched_result(recorder, body, document, (), both)


def _unkept(recorder: AnswerRecorder, body: bytes) -> Fetched:
    """What can be given in the form in which it came only, and once."""
    return Fetched(body, Reason.MALFORMED, seconds=recorder.seconds, headers=recorder.headers, both=False)


def _fetched_result(
    recorder: AnswerRecorder, body: bytes, document: Document, frames: tuple[bytes, ...], both: bool
) -> Fetched:
    request, dialect = recorder.request, recorder.request.endpoint.dialect
    usage, seconds = dialect.usage(document), recorder.seconds
    reason = dialect.flaw(document) or (Reason.INCOMPLETE if recorder.loose or recorder.lacks(document) else None)
    if reason is None and recorder.key is None:
        reason = Reason.NO_STORE
    if reason is None and len(body) + sum(map(len, frames)) > recorder.settings.cache_entry_bytes:
        reason = Reason.TOO_LARGE
    if reason is not None or recorder.key is None:
        return Fetched(body, reason or Reason.NO_STORE, usage, seconds, headers=recorder.answer_headers, both=both)
    now = time.time()
    directives = request.directives
    ends, hidden = _offsets(request, frames)
    entry = Entry(
        key=recorder.key,
        operation=request.endpoint.name,
        model=request.parsed.model,
        scope=recorder.scope,
        namespace=directives.namespace,
        tags=directives.tags,
        created=now,
        expires=now + (recorder.settings.ttl_seconds if directives.ttl is None else directives.ttl),
        document=body,
        frames=b"".join(frames),
        ends=ends,
        millis=recorder.buffer.millis.tobytes() if frames else b"",
        hidden=hidden,
        headers=recorder.answer_headers,
        upstream_seconds=seconds,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        both=both,
    )
    return Fetched(body, Reason.STORED, usage, seconds, (entry,), recorder.answer_headers, both)


def _offsets(request: CacheableRequest, frames: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """Where frames end, and what is hidden from callers who did not ask for usage: all of it if they get frames that
    are no such pieces."""
    dialect = request.endpoint.dialect
    ends, hidden = array("I", accumulate(map(len, frames))), array("I")
    # nothing is hidden before the first frame that names usage, and of those before it only the last may change
    first = next((place for place, frame in enumerate(frames) if _USAGE in frame), len(frames))
    rest = frames[max(0, first - 1) :]
    visible: list[bytes] = []
    at = ends[-1] - sum(map(len, rest)) if frames else 0
    for frame in rest:
        end = at + len(frame)
        if dialect.usage_only(frame):
            hidden.extend((at, end))
        else:
            visible.append(frame)
        at = end
    if (filter := dialect.usage_filter()) is not None and filter.feed(rest) + filter.close() != visible:
        hidden = array("I", (0, at))
    return ends.tobytes(), hidden.tobytes()
