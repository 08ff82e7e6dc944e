"""Generated answers, and generated streams of answers, for the property tests."""

import orjson
from hypothesis import strategies as st

from llmproxy.wire.documents import Document
from llmproxy.wire.formats.chunks import DONE
from llmproxy.wire.framing import sse_frame

#: characters that break splitting by bytes or by UTF-16 units: astral, combining, line separators, JSON's own
texts = st.text(st.sampled_from('aé日🦙\u0301\u2028\x00"\\\n\r{}'), max_size=8)
filled = texts.filter(bool)
_scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
values = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2))
unknown = st.dictionaries(st.sampled_from(["x_one", "x_two"]), values, max_size=2)

_token = st.fixed_dictionaries({"token": texts, "logprob": st.floats(-9, 0), "top_logprobs": st.just([])})
logprobs = st.none() | st.fixed_dictionaries(
    {"content": st.none() | st.lists(_token, max_size=3)},
    optional={"refusal": st.none() | st.lists(_token, max_size=2)},
)
usages = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(0, 99),
        "completion_tokens": st.integers(0, 99),
        "total_tokens": st.integers(0, 99),
    }
)

_function = st.fixed_dictionaries({"name": filled, "arguments": texts})
tool_calls = st.lists(
    st.builds(
        lambda known, extra: {**extra, **known},
        st.fixed_dictionaries({"id": filled, "type": st.just("function"), "function": _function})
        | st.fixed_dictionaries(
            {
                "id": filled,
                "type": st.just("custom"),
                "custom": st.fixed_dictionaries({"name": filled, "input": texts}),
            }
        ),
        unknown,
    ),
    max_size=3,
)


def _spoken(message: Document) -> bool:
    """A null content needs something in its place: alone, an assembled stream cannot tell it from an empty text."""
    return message["content"] is not None or bool(message.get("tool_calls") or message.get("refusal"))


messages = st.builds(
    lambda known, extra: {**extra, **known},
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.none() | texts},
        optional={
            "refusal": st.none() | filled,
            "reasoning_content": st.none() | texts,
            "reasoning": texts,
            "tool_calls": st.none() | tool_calls,
            "function_call": st.none() | _function,
            "annotations": st.lists(values, max_size=2),
            "audio": st.none()
            | st.fixed_dictionaries(
                {"id": filled, "data": texts, "transcript": texts, "expires_at": st.integers(1, 9)}
            ),
        },
    ).filter(_spoken),
    unknown,
)

_finish = st.sampled_from(["stop", "length", "tool_calls"])


def _numbered(choices: list[Document]) -> list[Document]:
    return [{**choice, "index": index} for index, choice in enumerate(choices)]


def _documents(kind: str, said: Document) -> st.SearchStrategy[Document]:
    choices = st.lists(
        st.builds(
            lambda known, extra: {**extra, **known},
            st.fixed_dictionaries({**said, "finish_reason": _finish}, optional={"logprobs": logprobs}),
            unknown,
        ),
        min_size=1,
        max_size=3,
    ).map(_numbered)
    return st.builds(
        lambda known, extra: {**extra, **known},
        st.fixed_dictionaries(
            {
                "id": filled,
                "object": st.just(kind),
                "created": st.integers(0, 2**40),
                "model": texts,
                "choices": choices,
            },
            optional={"system_fingerprint": st.none() | texts, "service_tier": texts, "usage": usages},
        ),
        unknown,
    )


chat_documents = _documents("chat.completion", {"message": messages})
completions_documents = _documents("text_completion", {"text": texts})


@st.composite
def chat_streams(draw: st.DrawFn) -> list[bytes]:
    """Frames of a chat stream: deltas of several choices in any order, texts and arguments in pieces."""
    count = draw(st.integers(1, 3))
    deltas = st.fixed_dictionaries(
        {},
        optional={
            "role": st.just("assistant"),
            "content": st.none() | texts,
            "reasoning_content": texts,
            "refusal": st.none() | texts,
            "tool_calls": st.lists(
                st.fixed_dictionaries(
                    {"index": st.integers(0, 2), "function": st.fixed_dictionaries({"arguments": texts})},
                    optional={"id": filled},
                ),
                max_size=2,
            ),
            "x_one": values,
        },
    )
    part = st.fixed_dictionaries({"index": st.integers(0, count - 1), "delta": deltas}, optional={"logprobs": logprobs})
    parts = draw(st.lists(st.lists(part, min_size=1, max_size=2), max_size=8))
    finish = [[{"index": index, "delta": {}, "finish_reason": "stop"}] for index in draw(st.permutations(range(count)))]
    header = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [header | {"choices": choices} for choices in [*parts, *finish]]
    chunks += [header | {"choices": [], "usage": usage} for usage in draw(st.lists(usages, max_size=2))]
    return [*(sse_frame(orjson.dumps(chunk)) for chunk in chunks), DONE]


def _shaped(names: str, kinds: list[str]) -> st.SearchStrategy[Document]:
    """Objects with these names, each with a value that may or may not be of the kind the name promises."""
    member = st.recursive(
        _scalars | st.sampled_from(kinds),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(names.split()), inner, max_size=4),
        max_leaves=8,
    )
    return st.dictionaries(st.sampled_from(names.split()), member, max_size=5)


#: what a broken server might send in the place of a chunk or an event
broken_chunks = _shaped(
    "choices index delta message text content role tool_calls function arguments name id logprobs usage "
    "finish_reason audio function_call error completion_tokens prompt_tokens completion_tokens_details",
    ["stop", "assistant"],
)
broken_events = _shaped(
    "type response item part delta item_id content text arguments call_id id output usage error status summary "
    "output_tokens index message content_block partial_json stop_reason",
    [
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.delta",
        "response.function_call_arguments.delta",
        "response.completed",
        "response.failed",
        "error",
        "message",
        "function_call",
        "reasoning",
        "output_text",
        "message_start",
        "content_block_start",
        "content_block_delta",
        "message_delta",
        "tool_use",
    ],
)
