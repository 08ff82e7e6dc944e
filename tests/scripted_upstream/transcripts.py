"""``/v1/audio/transcriptions`` as OpenAI answers it: a form in, and a transcript in the format that it names."""

from email.parser import BytesParser

from tests.scripted_upstream.answers import Answer, Json, sse, words
from tests.scripted_upstream.journal import Visit
from tests.scripted_upstream.script import Script

PATH = "/v1/audio/transcriptions"
_SECONDS = 1.5


def fields_of(visit: Visit) -> Json | None:
    """The text fields of the form, with ``file`` as the bytes of it; None for what is no form, or has no file."""
    head = f"content-type: {visit.header('content-type') or ''}\r\n\r\n".encode()
    form = BytesParser().parsebytes(head + visit.body)
    fields: Json = {}
    for part in form.get_payload() if form.is_multipart() else ():
        assert not isinstance(part, str)
        name, value = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        fields[str(name)] = value if name == "file" else bytes(value).decode()
    if "file" not in fields:
        return None
    return fields | {"stream": fields.get("stream") == "true"}


def transcript(number: int, request: Json, script: Script) -> Answer:
    """Words with their number, so that no two answers are equal. whisper-1 does not stream."""
    pieces = words(number, script)
    text = "".join(pieces)
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": len(pieces), "total_tokens": 14 + len(pieces)}
    events: list[Json] = [{"type": "transcript.text.delta", "delta": piece} for piece in pieces]
    events.append({"type": "transcript.text.done", "text": text, "usage": usage})
    frames = () if request.get("model") == "whisper-1" else tuple(map(sse, events))
    match request.get("response_format", "json"):
        case "text":
            return Answer({}, frames, raw=f"{text}\n".encode(), content_type="text/plain; charset=utf-8")
        case "srt":
            body = f"1\n00:00:00,000 --> 00:00:01,500\n{text}\n\n"
            return Answer({}, frames, raw=body.encode(), content_type="text/plain; charset=utf-8")
        case "vtt":
            body = f"WEBVTT\n\n00:00.000 --> 00:01.500\n{text}\n\n"
            return Answer({}, frames, raw=body.encode(), content_type="text/vtt; charset=utf-8")
        case "verbose_json":
            segment = {"id": 0, "start": 0.0, "end": _SECONDS, "text": text}
            about = {"task": "transcribe", "language": "english", "duration": _SECONDS, "segments": [segment]}
            return Answer({**about, "text": text, "usage": {"type": "duration", "seconds": 2}}, frames)
    return Answer({"text": text, "usage": usage}, frames)
