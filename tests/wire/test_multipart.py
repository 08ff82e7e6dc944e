"""A multipart body as it arrives: the same however its bytes fall, and refused where it is none."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire.errors import BadRequest
from llmproxy.wire.multipart import MultipartForm

TYPE = "multipart/form-data; boundary=bound"


def part(name: str, value: bytes, filename: str | None = None, more: bytes = b"") -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--bound\r\nContent-Disposition: form-data; name="{name}"{named}\r\n'.encode()
    return head + more + b"\r\n" + value + b"\r\n"


END = b"--bound--\r\n"
PURPOSE = part("purpose", b"batch")
FILE = part("file", b"content", "in.jsonl", b"Content-Type: text/x-python\r\n")


def read(body: bytes, cuts: list[int] | None = None, content_type: str = TYPE) -> tuple[MultipartForm, bytes]:
    form = MultipartForm(content_type)
    edges = [0, *sorted(min(at, len(body)) for at in cuts or []), len(body)]
    found = b"".join(piece for start, end in pairwise(edges) for piece in form.feed(body[start:end]))
    form.end()
    return form, found


@given(
    st.lists(st.sampled_from([b"\r\n", b"--bound", b"\r\n--boun", b"a", b"\r", b"\n", b"-", b"\0"]), max_size=12),
    st.lists(st.integers(0, 400), max_size=12),
    st.booleans(),
)
@settings(max_examples=200)
def test_the_file_is_what_was_sent(bits: list[bytes], cuts: list[int], file_first: bool) -> None:
    content = b"".join(bits)
    if b"\r\n--bound" in b"\r\n" + content:
        # RFC 2046: a boundary does not occur in a part
        content = content.replace(b"--bound", b"--round")
    parts = [PURPOSE, part("expires_after[seconds]", b"3600"), part("file", content, "a b.jsonl")]
    form, found = read(b"".join(parts[::-1] if file_first else parts) + END, cuts)
    assert found == content
    assert form.fields == {"purpose": "batch", "expires_after[seconds]": "3600"}
    assert form.filename == "a b.jsonl"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("日本 naïve.jsonl", "日本 naïve.jsonl"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("tab\tnul\0line.txt", "tab_nul_line.txt"),
        ("", "file"),
    ],
)
def test_the_name_of_the_file(sent: str, kept: str) -> None:
    form, _ = read(part("file", b"x", sent) + END)
    assert form.filename == kept


def test_a_file_without_a_name_is_a_file() -> None:
    form, found = read(part("file", b"x" * 100_000) + END)
    assert (form.filename, found) == ("file", b"x" * 100_000)


def test_an_empty_file_is_one() -> None:
    form, found = read(part("file", b"", "empty.txt") + END)
    assert (form.filename, found) == ("empty.txt", b"")


BAD = {
    "empty": b"",
    "nothing of a form": b'{"purpose": "batch"}',
    "cut in a header": PURPOSE + FILE[:30],
    "cut in the file": PURPOSE + FILE[:-5],
    "cut before the last boundary": PURPOSE + FILE,
    "another boundary": (PURPOSE + FILE + END).replace(b"--bound", b"--other"),
    "no name": b"--bound\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
    "no headers": b"--bound\r\n\r\nx\r\n" + END,
    "a broken header": b"--bound\r\nno colon at all\r\n\r\nx\r\n" + END,
    "two files": FILE + FILE + END,
    "a field that is too long": part("purpose", b"x" * 65_537) + END,
    "a header that is too long": part("purpose", b"x", more=b"X-Long: " + b"x" * 20_000 + b"\r\n") + END,
    "too many headers": part("purpose", b"x", more=b"X-Many: x\r\n" * 2_000) + END,
    "too many parts": PURPOSE * 33 + END,
    "not utf-8": part("purpose", b"\xff") + END,
    "a filename that is not utf-8": part("file", b"x", "NAME").replace(b"NAME", b"\xff") + END,
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("step", [1, 7, 1_000_000])
def test_a_bad_body_is_refused(name: str, step: int) -> None:
    with pytest.raises(BadRequest):
        read(BAD[name], list(range(step, len(BAD[name]), step)))


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=bound",
        f"multipart/form-data; boundary={'b' * 300}",
    ],
)
def test_a_bad_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(BadRequest):
        MultipartForm(content_type)


@pytest.mark.parametrize("content_type", ['Multipart/Form-Data; charset=utf-8; boundary="bound"', TYPE])
def test_the_content_type_may_be_written_in_several_ways(content_type: str) -> None:
    assert read(FILE + END, content_type=content_type)[1] == b"content"


def with_header_bytes(count: int) -> bytes:
    known = len('Content-Dispositionform-data; name="purpose"X-Long')
    return part("purpose", b"x", more=b"X-Long: " + b"x" * (count - known) + b"\r\n")


def test_limits_are_still_allowed() -> None:
    assert len(read(PURPOSE * 32 + END)[0].values) == 32
    assert len(read(part("purpose", b"x" * 65_536) + END)[0].fields["purpose"]) == 65_536
    # python-multipart has a limit of its own for headers, which is lower in newer versions
    assert read(with_header_bytes(3_000) + END)[0].fields == {"purpose": "x"}


def test_every_part_has_headers_of_its_own() -> None:
    form, found = read(with_header_bytes(3_000) * 7 + FILE + END)
    assert (form.values, form.filename, form.file_type) == ([("purpose", "x")] * 7, "in.jsonl", "text/x-python")
    assert found == b"content"
    assert read(part("file", b"x", "a") + END)[0].file_type == ""
