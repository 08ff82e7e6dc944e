"""A multipart/form-data body (RFC 7578), parsed as it arrives: short fields are kept, the file's bytes are handed on.

Starlette's own form parser would write the whole file to a temporary place first.
"""

import codecs
from collections import defaultdict

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from llmproxy.wire.errors import BadRequest

_MOST_PARTS = 32
_MOST_FIELD_BYTES = 64 * 1024
_MOST_HEADER_BYTES = 16 * 1024


class MultipartForm:
    """One form. Raises ``BadRequest`` for a content type that is not multipart."""

    def __init__(self, content_type: str) -> None:
        #: names and values of the text fields so far, in the order received
        self.values: list[tuple[str, str]] = []
        #: None until the part ``file`` has begun
        self.filename: str | None = None
        #: the content type of the part ``file``, "" if it has none
        self.file_type = ""
        self._parser = _parser(content_type, self)
        self._parts = 0
        self._pieces: list[bytes] = []
        self._complete = False
        # of the part that is being read
        self._headers: defaultdict[bytes, bytes] = defaultdict(bytes)
        self._header_bytes = 0
        self._header = b""
        self._name = ""
        self._in_file = False
        self._value = b""

    @property
    def fields(self) -> dict[str, str]:
        """The text fields so far; the last value of each."""
        return dict(self.values)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Takes the next bytes of the body, and returns the file's among them. Raises ``BadRequest``."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(f"The multipart body is malformed: {error}.") from error
        pieces, self._pieces = self._pieces, []
        return pieces

    def end(self) -> None:
        """Ends the body. Raises ``BadRequest`` if its last boundary is missing."""
        if not self._complete:
            raise BadRequest("The multipart body ends before its last boundary.")

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise BadRequest(f"The form has more than {_MOST_PARTS} parts.")
        self._headers.clear()
        self._header_bytes, self._header, self._value = 0, b"", b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header += data[start:end].lower()

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._headers[self._header] += data[start:end]

    def on_header_end(self) -> None:
        self._header = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers[b"content-disposition"])
        if b"name" not in options:
            raise BadRequest("A part of the form has no name.")
        self._name = _text(options[b"name"], "name of a part")
        self._in_file = self._name == "file"
        if self._in_file:
            if self.filename is not None:
                raise BadRequest("The form has more than one 'file'.", param="file")
            self.filename = _printable(_text(options.get(b"filename", b""), "name of the file")) or "file"
            self.file_type = _printable(self._headers[b"content-type"].decode("latin-1").strip())

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(data[start:end])
        elif len(self._value) + end - start > _MOST_FIELD_BYTES:
            raise BadRequest(f"A field of the form is longer than {_MOST_FIELD_BYTES} bytes.")
        else:
            self._value += data[start:end]

    def on_part_end(self) -> None:
        if not self._in_file:
            self.values.append((self._name, _text(self._value, "value of a field")))

    def on_end(self) -> None:
        self._complete = True

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MOST_HEADER_BYTES:
            raise BadRequest("The headers of a part of the form are too long.")


def _parser(content_type: str, form: MultipartForm) -> MultipartParser:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest("A multipart/form-data body with a boundary is needed.")
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": form.on_part_begin,
                "on_part_data": form.on_part_data,
                "on_part_end": form.on_part_end,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_headers_finished": form.on_headers_finished,
                "on_end": form.on_end,
            },
        )
    except FormParserError as error:
        raise BadRequest(f"The boundary of the multipart body cannot be used: {error}.") from error


def _text(data: bytes, what: str) -> str:
    try:
        return codecs.decode(data, "utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"The {what} in the form is not UTF-8.") from error


def _printable(text: str) -> str:
    """A text that is safe to print: no path is ever made from it."""
    return "".join(each if each.isprintable() else "_" for each in text)
