"""The answers of ``/v1/embeddings``: whole, cut into one part for each input, and put together from such parts.

Numbers stay as the upstream printed them. A vector is rendered only for a caller who asks for the other encoding:
base64 of little-endian float32s, as OpenAI sends them.
"""

import binascii
import json
import re
from array import array
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from sys import byteorder
from typing import Any

import orjson

from llmproxy.wire.documents import Document, Malformed, tokens
from llmproxy.wire.exchange import Usage
from llmproxy.wire.formats.plain import PlainDialect
from llmproxy.wire.vocabulary import Reason

FLOAT, BASE64 = "float", "base64"

#: the fields of a request whose vectors depend on nothing but their own input
_PER_INPUT = frozenset({"model", "input", "encoding_format", "dimensions", "user", "input_type", "truncate", "task"})
#: fields that are part of each input's key instead of the request's
INPUT_BY_INPUT = frozenset({"input", "encoding_format"})
#: the fields that choose the type of the numbers: of vLLM, Mistral, Voyage, Jina, Cohere, sentence-transformers
_NUMBER_TYPES = ("dtype", "embed_dtype", "output_dtype", "embedding_type", "embedding_types", "precision", "endianness")
_FLOAT32 = (None, "float", "float32", "native", "little", ["float"])

#: a vector of numbers, or a text, behind its name. In valid JSON the quotes can only be those of a name
_VECTOR = re.compile(rb'"embedding"\s*:\s*(\[[-+0-9.eE,\s]*\]|"[^"\\]*")')


_BLANKS = re.compile(rb'"data": \[')
#: stands for a text that is written into a document unchanged
_PLACE = "\0place"


class _Embeddings(PlainDialect):
    __slots__ = ()

    name: str = "embeddings"
    answers: str = "data"

    def flaw(self, document: Document) -> Reason | None:
        reason = super().flaw(document)
        if reason is not None:
            return reason
        vectors = [item.get("embedding") if isinstance(item, dict) else None for item in document["data"]]
        return None if all(map(is_vector, vectors)) else Reason.NOT_FLOAT32


EMBEDDINGS = _Embeddings()


def is_vector(value: object) -> bool:
    """Whether the value is a flat, filled list of numbers, or base64 of float32s."""
    if isinstance(value, str):
        return floats_of(value) is not None
    return isinstance(value, list) and bool(value) and set(map(type, value)) <= {int, float}


def floats_of(text: str | bytes) -> "array[float] | None":
    """The finite float32s in base64, None for anything else."""
    try:
        raw = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not raw or len(raw) % 4:
        return None
    vector = array("f", raw)
    if byteorder == "big":
        vector.byteswap()
    return vector if all(map(isfinite, vector)) else None


def other_numbers(body: Document) -> bool:
    """Whether a request asks for other vectors than lists of floats or base64 of float32s."""
    if body.get("encoding_format") not in (None, FLOAT, BASE64):
        return True
    return any(body[name] not in _FLOAT32 for name in _NUMBER_TYPES if name in body)


def encoding_of(body: Document) -> str:
    """The encoding of a request without ``other_numbers``."""
    return body.get("encoding_format") or FLOAT


def inputs_of(body: Document) -> list[Any]:
    """The separate inputs of a request: one text, one list of token numbers, or a list of either."""
    value = body.get("input")
    if not isinstance(value, list):
        return [] if value is None else [value]
    # a list with a number in it is one input to llama.cpp, texts in it or not
    return value if all(isinstance(item, str | list | dict) for item in value) else [value]


#: twice the number that OpenAI allows in one request
_MOST_INPUTS = 4096


def is_per_input(body: Document) -> bool:
    """Whether each input's vector is independent of the rest of the request.

    An unknown field may couple them (``late_chunking``). An answer to very many inputs is kept as a whole, because each
    input costs a look-up.
    """
    return body.keys() <= _PER_INPUT and 0 < len(inputs_of(body)) <= _MOST_INPUTS


@dataclass(frozen=True, slots=True)
class Part:
    """One input's part of an answer: JSON, with the vector last.

    ``document`` has the members ``answer`` (the whole answer but its data, with this input's share of the usage),
    ``item`` (the whole item but its vector) and ``embedding`` (the text of the vector). ``blanks`` says whether the
    answer has blanks behind its separators, as Python's ``json`` writes them.
    """

    document: bytes

    @property
    def vector(self) -> bytes:
        """The text of the vector: a list, or a string."""
        return self.document.rpartition(_LAST)[2][:-1]

    @property
    def encoding(self) -> str:
        """The encoding of the stored vector."""
        return BASE64 if is_text(self.vector) else FLOAT

    def has(self, encoding: str) -> bool:
        """Whether the vector is stored in this encoding, or can be rendered in it from the same float32s."""
        vector = self.vector
        try:
            return is_text(vector) or bool(rendered(vector, encoding))
        except OtherNumbers:
            return False

    @property
    def members(self) -> Document:
        members: Document = orjson.loads(self.document.rpartition(_LAST)[0] + b"}")
        return members

    @property
    def prompt_tokens(self) -> int | None:
        return EMBEDDINGS.usage(self.members["answer"]).prompt_tokens


_LAST = b',"embedding":'


def cut(body: bytes, inputs: Sequence[Any]) -> list[Part]:
    """The parts of an answer to these inputs, in their order.

    Raises ``Malformed`` for a body that is not an answer, ``OtherNumbers`` for vectors of other numbers than float32s.
    """
    skeleton, vectors = _extract_vectors(body)
    blanks = _BLANKS.search(body) is not None
    data = skeleton.get("data")
    if skeleton.get("error") is not None or not isinstance(data, list) or not data:
        raise Malformed("it holds no embeddings")
    if not all(isinstance(item, dict) for item in data):
        raise Malformed("an embedding is no object")
    if len(data) != len(inputs):
        raise Malformed(f"{len(inputs)} embeddings were asked for, {len(data)} came")
    if [item.get("embedding") for item in data] != list(range(len(vectors))):
        raise OtherNumbers("an embedding is no list of numbers")
    lengths = {_length(vector) for vector in vectors}
    if len(lengths) != 1 or 0 in lengths:
        text = any(map(is_text, vectors))
        raise OtherNumbers("an embedding is empty, or no base64 of as many float32s as the others", text=text)
    places = _places(data)
    answer = {name: None if name == "data" else value for name, value in skeleton.items()}
    usages = _shares(skeleton.get("usage"), inputs)
    parts = []
    for place, usage in zip(places, usages, strict=True):
        if usage is not None:
            answer["usage"] = usage
        head = orjson.dumps({"answer": answer, "item": data[place] | {"embedding": None}, "blanks": blanks})
        parts.append(Part(b"".join((head[:-1], _LAST, vectors[place], b"}"))))
    return parts


class OtherNumbers(Malformed):
    """The vectors are not float32s: they are not stored, nor given in another form. ``text``: they are strings."""

    def __init__(self, message: str, *, text: bool = False) -> None:
        super().__init__(message)
        self.text = text


def is_text(vector: bytes) -> bool:
    return vector.startswith(b'"')


def _extract_vectors(body: bytes) -> tuple[Document, list[bytes]]:
    """The document with a number in place of each vector, and the vectors' texts."""
    pieces: list[bytes] = []
    vectors: list[bytes] = []
    at = 0
    while (match := _VECTOR.search(body, at)) is not None:
        pieces += (body[at : match.start(1)], b"%d" % len(vectors))
        vectors.append(match[1])
        at = match.end()
    pieces.append(body[at:])
    try:
        skeleton = orjson.loads(b"".join(pieces))
    except orjson.JSONDecodeError as error:
        raise Malformed(f"it is not JSON: {error}") from error
    if not isinstance(skeleton, dict):
        raise Malformed("it is no JSON object")
    return skeleton, vectors


def _length(vector: bytes) -> int:
    """How many bytes or numbers a vector has, 0 for anything else. Raises ``Malformed``."""
    try:
        value = orjson.loads(vector)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"it is not JSON: {error}") from error
    return len(value) if is_vector(value) else 0


def _places(data: Sequence[Document]) -> list[int]:
    """The index of each input's item. Servers that number all items 0, or none, rely on their order.

    Raises ``Malformed``.
    """
    numbers = [item.get("index") for item in data]
    if all(number == numbers[0] and number in (0, None) for number in numbers):
        return list(range(len(data)))
    places = {number: place for place, number in enumerate(numbers) if type(number) is int}
    if places.keys() != set(range(len(data))):
        raise Malformed("the embeddings are numbered otherwise than they were asked for")
    return [places[number] for number in range(len(data))]


def _shares(usage: Any, inputs: Sequence[Any]) -> list[Document | None]:
    """Each input's usage. Upstreams give only the sum: each whole number in it is shared out, so that the sum stays."""
    if not isinstance(usage, dict):
        return [None] * len(inputs)
    counts = {name: shares(count, inputs) for name, count in usage.items() if _is_count(count)}
    return [usage | {name: share[at] for name, share in counts.items()} for at in range(len(inputs))]


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def shares(total: int, inputs: Sequence[Any]) -> list[int]:
    """Shares ``total`` out by the inputs' lengths, such that the sum stays. The length of a list of tokens is their
    number."""
    weights = [max(1, len(value if isinstance(value, list) else str(value))) for value in inputs]
    total_weight, shared, reach, result = sum(weights), 0, 0, []
    for weight in weights:
        reach += weight
        share = total * reach // total_weight - shared
        shared += share
        result.append(share)
    return result


def assembled(parts: Sequence[Part], encoding: str, *, shortest: bool = False) -> tuple[bytes, Usage]:
    """One answer from parts, in the order of the inputs, and its usage. Raises ``OtherNumbers``.

    ``shortest``: the server prints a float32 in its shortest form, not widened to a double.
    """
    members = [part.members for part in parts]
    answer = members[0]["answer"]
    if "usage" in answer:
        answer["usage"] = _summed([one["answer"].get("usage") for one in members])
        if answer["usage"] is None:
            del answer["usage"]
    blanks = members[0].get("blanks") is True
    items = []
    for index, (one, part) in enumerate(zip(members, parts, strict=True)):
        item = one["item"]
        if "index" in item or len(parts) > 1:
            item["index"] = index
        if encoding and part.encoding != encoding:
            # llama.cpp names the encoding of a vector that is not a list of floats
            item.pop("encoding_format", None)
        items.append(_written(item, "embedding", rendered(part.vector, encoding, shortest=shortest), blanks))
    body = _written(answer, "data", b"[%b]" % (b", " if blanks else b",").join(items), blanks)
    return body, tokens(answer.get("usage"), "prompt_tokens", "completion_tokens")


def _written(document: Document, name: str, text: bytes, blanks: bool) -> bytes:
    """JSON with ``text`` as the value of a member, with or without blanks behind the separators."""
    if not blanks:
        return orjson.dumps(document | {name: orjson.Fragment(text)})
    before, _, after = json.dumps(document | {name: _PLACE}).partition(json.dumps(_PLACE))
    return b"".join((before.encode(), text, after.encode()))


def _summed(usages: Sequence[Any]) -> Document | None:
    """The sum of the usages, None if one of them is unknown."""
    if not all(isinstance(usage, dict) for usage in usages):
        return None
    first: Document = usages[0]
    sums = {
        name: sum(usage.get(name, 0) for usage in usages)
        for name, count in first.items()
        if _is_count(count) and all(_is_count(usage.get(name, 0)) for usage in usages)
    }
    return first | sums


def rendered(vector: bytes, encoding: str, *, shortest: bool = False) -> bytes:
    """A vector's text in an encoding: unchanged, or made from the other one; "" leaves it unchanged.

    Raises ``OtherNumbers`` if the result would not be the same float32s.
    """
    if is_text(vector):
        return _as_list(vector, shortest=shortest) if encoding == FLOAT else vector
    return _as_base64(vector) if encoding == BASE64 else vector


def _as_list(vector: bytes, *, shortest: bool) -> bytes:
    floats = floats_of(vector[1:-1])
    if floats is None:
        raise OtherNumbers("an embedding is a text that is no base64 of float32s")
    if shortest:
        return f"[{','.join(map(_shortest, floats))}]".encode()
    return orjson.dumps(floats.tolist())


def _shortest(number: float) -> str:
    """The fewest digits that are this float32 and no other."""
    texts = [f"{number:.{digits}g}" for digits in (6, 7, 8)]
    near = array("f", map(float, texts))
    return next((text for text, other in zip(texts, near, strict=True) if other == number), f"{number:.9g}")


def _as_base64(vector: bytes) -> bytes:
    if b"." not in vector and b"e" not in vector and b"E" not in vector:
        # whole numbers: more likely int8 than float32
        raise OtherNumbers("an embedding is a list of whole numbers")
    numbers = orjson.loads(vector)
    try:
        packed = array("f", numbers)
    except OverflowError as error:
        raise OtherNumbers("an embedding holds a number that is no float32") from error
    if not all(map(_is_float32, numbers, packed)):
        raise OtherNumbers("an embedding holds a number that is no float32")
    if byteorder == "big":
        packed.byteswap()
    return b'"' + b64encode(packed.tobytes()) + b'"'


def _is_float32(number: float, packed: float) -> bool:
    """Whether the sender meant ``packed``, the nearest float32: its exact value, or its shortest form (Go, Rust)."""
    if number == packed:
        return isfinite(packed)
    return any(float(f"{packed:.{digits}g}") == number for digits in (8, 9, 7, 6, 5, 4, 3, 2, 1))
