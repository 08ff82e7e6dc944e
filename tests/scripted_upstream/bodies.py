"""Bodies with status 200 that no cache can keep although clients read them, and forms under another's content type."""

import json
from collections.abc import Callable

from tests.scripted_upstream.answers import sse
from tests.scripted_upstream.faults import Fault, Scene

#: what is no strict JSON, in the place of a member's value
_LOOSE = {
    "nan": b"NaN",
    "infinity": b"-Infinity",
    "surrogate": b'"\\ud83d"',
    "control": b'"a\x01b"',
    "not-utf8": b'"\xff"',
}


def _loose(value: bytes) -> Fault:
    """The plain document with such a value in it."""

    async def fault(scene: Scene) -> None:
        body = b'{"odd": %b, ' % value + json.dumps(scene.answer.document).encode()[1:]
        await scene.stage.whole(200, "application/json; charset=utf-8", body)

    return fault


def _loose_frames(value: bytes) -> Fault:
    """The stream, with such a value in every frame that is an object."""

    async def fault(scene: Scene) -> None:
        frames = [frame.replace(b"{", b'{"odd":%b,' % value, 1) for frame in scene.answer.frames]
        await _stream(scene, scene.answer.stream_type, frames)

    return fault


async def _stream(scene: Scene, content_type: str | None, frames: list[bytes]) -> None:
    named = [] if content_type is None else [("content-type", content_type)]
    await scene.stage.head(200, [*named, ("transfer-encoding", "chunked")])
    await scene.send(frames)
    await scene.stage.end()


def _stream_as(content_type: str | None) -> Fault:
    async def fault(scene: Scene) -> None:
        await _stream(scene, content_type, list(scene.answer.frames))

    return fault


def _body(content_type: str, body: bytes) -> Fault:
    async def fault(scene: Scene) -> None:
        await scene.stage.whole(200, content_type, body)

    return fault


async def null_frame(scene: Scene) -> None:
    """A first event that is ``null``."""
    await _stream(scene, scene.answer.stream_type, [b"data: null\n\n", *scene.answer.frames])


async def document_as_stream(scene: Scene) -> None:
    """The plain document under the content type of a stream."""
    await scene.stage.whole(200, scene.answer.stream_type, json.dumps(scene.answer.document).encode())


async def deep(scene: Scene) -> None:
    """A document nested more deeply than is written."""
    nested = b"[" * 400 + b"]" * 400
    body = json.dumps(scene.answer.document).encode()[:-1] + b', "deep": %b}' % nested
    await scene.stage.whole(200, "application/json", body)


async def deep_frames(scene: Scene) -> None:
    """A stream with such an event."""
    nested = b"[" * 400 + b"]" * 400
    frames = [frame.replace(b"{", b'{"deep":%b,' % nested, 1) for frame in scene.answer.frames]
    await _stream(scene, scene.answer.stream_type, frames)


async def named_error(scene: Scene) -> None:
    """An event that is an error by its name only, in the middle of the stream, with the terminal event after it."""
    said = sse({"message": "the model fell over", "code": 429, "metadata": {"provider": "p"}}, "error")
    half = len(scene.answer.frames) // 2
    frames = [*scene.answer.frames[:half], said, *scene.answer.frames[half:]]
    await _stream(scene, scene.answer.stream_type, frames)


def _without(change: Callable[[dict[str, object]], object]) -> Fault:
    """The plain document without what makes it an answer."""

    async def fault(scene: Scene) -> None:
        document = json.loads(json.dumps(scene.answer.document))
        change(document)
        await scene.stage.whole(200, "application/json", json.dumps(document).encode())

    return fault


_SAID = ("choices", "output", "content", "message", "response")


def _null(document: dict[str, object]) -> None:
    document.update({name: None for name in _SAID if name in document})


def _gone(document: dict[str, object]) -> None:
    for name in _SAID:
        document.pop(name, None)


def _bare(document: dict[str, object]) -> None:
    for name in ("object", "created", "id", "model", "usage"):
        document.pop(name, None)


#: plain bodies that are no strict JSON objects, by name: content type and bytes
TEXTS: dict[str, tuple[str, bytes]] = {
    "text": ("text/plain; charset=utf-8", b"hello"),
    "nothing-as-text": ("text/plain", b""),
    "array": ("application/json", b'[{"score": 1}]'),
    "number": ("application/json", b"42"),
    "string": ("application/json", b'"hello"'),
    "null": ("application/json", b"null"),
    "binary": ("application/octet-stream", b"\x00\xff\xfe"),
}

#: take the place of a stream, where one was asked for
STREAMS: dict[str, Fault] = {
    **{f"{name}-frames": _loose_frames(value) for name, value in _LOOSE.items()},
    "null-frame": null_frame,
    "stream-as-json": _stream_as("application/json"),
    "stream-as-text": _stream_as("text/plain"),
    "stream-as-nothing": _stream_as(None),
    "deep-frames": deep_frames,
    "named-error": named_error,
}

#: take the place of an answer in whatever form
BODIES: dict[str, Fault] = {
    **{name: _body(*body) for name, body in TEXTS.items()},
    **{name: _loose(value) for name, value in _LOOSE.items()},
    "document-as-stream": document_as_stream,
    "deep": deep,
    "null-answer": _without(_null),
    "no-answer": _without(_gone),
    "bare": _without(_bare),
}
LOOSE = tuple(_LOOSE)
