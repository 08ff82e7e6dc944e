"""A Response object as strict parsers require it: every member there, and the request's values echoed."""

from typing import Any

from llmproxy.wire.dialect import Document
from llmproxy.wire.documents import tokens

_ITEM_PREFIX = {"message": "msg", "function_call": "fc", "reasoning": "rs"}


def complete(document: Document, request: Document) -> Document:
    """``document`` with every member that the Open Responses specification requires. Neither argument is changed.

    What the document lacks is taken from the request where it says so, else the published default. A Response that
    used up the request's ``max_output_tokens`` is ``incomplete``: llama.cpp calls it completed.
    """
    response = _echo(request)
    response |= {name: value for name, value in document.items() if value is not None or name not in response}
    if isinstance(output := document.get("output"), list):
        id = str(document.get("id", ""))
        response["output"] = [complete_item(item, id, index) for index, item in enumerate(output)]
    response["usage"] = _usage(document.get("usage"))
    if response.get("status") == "completed" and _used_up(response, request):
        response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    if response.get("status") != "completed":
        response["completed_at"] = None
    elif response["completed_at"] is None:
        response["completed_at"] = response["created_at"]
    return response


def complete_item(item: Any, response_id: str, index: int) -> Any:
    """An output item with the members its kind requires; a missing id is made from the response's id and the index.

    What is no object is left alone.
    """
    if not isinstance(item, dict):
        return item
    kind = item.get("type")
    completed = item | {"id": item.get("id") or _item_id(item, response_id, index)}
    if kind == "message":
        parts = item.get("content")
        content = [complete_part(part) for part in parts] if isinstance(parts, list) else []
        completed = {"role": "assistant", "status": "completed", **completed, "content": content}
    elif kind == "function_call":
        completed = {"status": "completed", **completed}
    elif kind == "reasoning":
        completed = {"summary": [], **completed}
    return completed


def complete_part(part: Any) -> Any:
    """A content part with the members its kind requires. What is no object is left alone."""
    if isinstance(part, dict) and part.get("type") == "output_text":
        return {"annotations": [], "logprobs": [], **part}
    return part


def _item_id(item: Document, response_id: str, index: int) -> str:
    call_id = item.get("call_id")
    if item.get("type") == "function_call" and isinstance(call_id, str) and call_id:
        return "fc_" + call_id.removeprefix("fc_").removeprefix("call_")
    prefix = _ITEM_PREFIX.get(str(item.get("type")), "item")
    return f"{prefix}_{response_id.removeprefix('resp_')}_{index}"


def _echo(request: Document) -> Document:
    """The members of a Response that repeat its request, and the defaults of the others."""
    response: Document = {
        "object": "response",
        "created_at": 0,
        "completed_at": None,
        "model": "",
        "error": None,
        "incomplete_details": None,
        "background": False,
        "frequency_penalty": 0.0,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "safety_identifier": None,
        "store": False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }
    for name in response.keys() - _NEVER_ECHOED:
        if request.get(name) is not None:
            response[name] = request[name]
    response["reasoning"] = {"effort": None, "summary": None} | _object(request.get("reasoning"))
    response["text"] = {"format": {"type": "text"}} | _object(request.get("text"))
    tools = request.get("tools")
    response["tools"] = [_tool(tool) for tool in tools] if isinstance(tools, list) else []
    response["service_tier"] = "default"
    return response


#: what only the answer knows
_NEVER_ECHOED = frozenset({"object", "created_at", "completed_at", "error", "incomplete_details"})


def _object(value: Any) -> Document:
    return value if isinstance(value, dict) else {}


def _tool(tool: Any) -> Any:
    if isinstance(tool, dict) and tool.get("type") == "function":
        return {"description": None, "parameters": None, "strict": None, **tool}
    return tool


def _usage(usage: Any) -> Document | None:
    if not isinstance(usage, dict):
        return None
    counted = tokens(usage, "input_tokens", "output_tokens")
    taken, given = counted.prompt_tokens or 0, counted.completion_tokens or 0
    return {
        "input_tokens": taken,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": given,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": taken + given,
    } | {name: value for name, value in usage.items() if value is not None}


def _used_up(response: Document, request: Document) -> bool:
    limit = request.get("max_output_tokens")
    used = (response["usage"] or {}).get("output_tokens")
    return isinstance(limit, int) and isinstance(used, int) and used >= limit
