"""A Response object completed with what strict parsers require."""

import copy

import pytest

from llmproxy.wire.documents import Document
from llmproxy.wire.formats.responses import RESPONSES, complete

#: the members the Open Responses specification requires
REQUIRED = frozenset(
    (
        "id",
        "object",
        "created_at",
        "completed_at",
        "status",
        "incomplete_details",
        "model",
        "previous_response_id",
        "instructions",
        "output",
        "error",
        "tools",
        "tool_choice",
        "truncation",
        "parallel_tool_calls",
        "text",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "top_logprobs",
        "temperature",
        "reasoning",
        "usage",
        "max_output_tokens",
        "max_tool_calls",
        "store",
        "background",
        "service_tier",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
    )
)

LLAMACPP = {
    "completed_at": 9,
    "created_at": 9,
    "id": "resp_abc",
    "model": "alias",
    "object": "response",
    "output": [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "hi"}]},
        {"type": "function_call", "call_id": "fc_xyz", "name": "f", "arguments": "{}"},
        {"type": "new_kind"},
    ],
    "status": "completed",
    "usage": {"input_tokens": 32, "output_tokens": 8, "input_tokens_details": {"cached_tokens": 31}},
}


def test_completing_fills_what_strict_parsers_require() -> None:
    before = copy.deepcopy(LLAMACPP)
    document = complete(LLAMACPP, {"model": "m"})
    assert before == LLAMACPP
    assert document.keys() >= REQUIRED
    assert document["model"] == "alias"
    assert document["text"] == {"format": {"type": "text"}}
    assert document["tool_choice"] == "auto"
    assert document["usage"] == {
        "input_tokens": 32,
        "input_tokens_details": {"cached_tokens": 31},
        "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 40,
    }
    assert [item["id"] for item in document["output"]] == ["rs_abc_0", "msg_abc_1", "fc_xyz", "item_abc_3"]
    assert document["output"][0]["summary"] == []
    assert document["output"][1] == {
        "type": "message",
        "id": "msg_abc_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}],
    }
    assert document["output"][2]["status"] == "completed"
    assert complete(document, {"model": "m"}) == document


def test_completing_echoes_the_request() -> None:
    request = {
        "model": "m",
        "instructions": "be brief",
        "temperature": 0.5,
        "metadata": {"a": "b"},
        "max_output_tokens": 9,
        "tool_choice": "required",
        "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "low"},
        "top_p": None,
        "status": "failed",
        "error": "not echoed",
    }
    document = complete(LLAMACPP, request)
    for name in ("instructions", "temperature", "metadata", "max_output_tokens", "tool_choice"):
        assert document[name] == request[name]
    assert document["tools"] == [
        {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None},
        {"type": "web_search"},
    ]
    assert document["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert document["reasoning"] == {"effort": "low", "summary": None}
    assert document["top_p"] == 1.0
    assert (document["status"], document["error"]) == ("completed", None)


@pytest.mark.parametrize(("limit", "status"), [(8, "incomplete"), (9, "completed"), (None, "completed")])
def test_a_response_that_used_up_its_tokens_is_incomplete(limit: int | None, status: str) -> None:
    document = complete(LLAMACPP, {"max_output_tokens": limit})
    assert document["status"] == status
    details = {"reason": "max_output_tokens"} if status == "incomplete" else None
    assert document["incomplete_details"] == details
    assert document["completed_at"] == (None if status == "incomplete" else 9)


@pytest.mark.parametrize("document", [{}, {"status": "completed"}, {"status": "in_progress", "output": []}])
def test_completing_hides_no_flaw(document: Document) -> None:
    assert RESPONSES.flaw(complete(document, {})) is RESPONSES.flaw(document) is not None
