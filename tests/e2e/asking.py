"""What the end-to-end tests ask llama.cpp, and how they read the stream's pieces."""

from collections.abc import Iterable
from random import randrange
from typing import Any

from openai.types.chat import ChatCompletionChunk

from tests.llama import CHAT_MODEL

WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CITY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "sunny": {"type": "boolean"}},
    "required": ["city", "sunny"],
    "additionalProperties": False,
}


#: the model goes on to the last token it may give, so that lengths are known
TO_THE_END: dict[str, Any] = {"ignore_eos": True}


def chat(prompt: str = "Say hello.", **more: Any) -> dict[str, Any]:
    """Arguments of a chat completion of 12 tokens. The seed changes nothing at temperature 0, but makes it unique."""
    return {
        "model": CHAT_MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "seed": randrange(2**31),
        "max_tokens": 12,
        "extra_body": TO_THE_END,
        **more,
    }


def body(arguments: dict[str, Any]) -> dict[str, Any]:
    """The request body that the client makes of its arguments."""
    named = {name: value for name, value in arguments.items() if name != "extra_body"}
    return {**named, **arguments["extra_body"]}


def function_call() -> dict[str, Any]:
    """Input and tools of a Response whose history shows the small model how to call a function, so that it does."""
    history: list[dict[str, Any]] = []
    for number, city in enumerate(("Rome", "Oslo")):
        arguments = f'{{"city": "{city}"}}'
        history.append({"role": "user", "content": f"What is the weather in {city}?"})
        call = {"type": "function_call", "call_id": f"call_{number}", "name": "get_weather", "arguments": arguments}
        history.append(call)
    history.append({"role": "user", "content": "What is the weather in Paris?"})
    return {"input": history, "tools": [{"type": "function", **WEATHER}], "tool_choice": "required"}


def tool_call(**more: Any) -> dict[str, Any]:
    """A chat whose history shows the small model how to call a tool, so that it does."""
    messages: list[dict[str, Any]] = []
    for number, city in enumerate(("Rome", "Oslo")):
        function = {"name": "get_weather", "arguments": f'{{"city": "{city}"}}'}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        messages.append({"role": "user", "content": f"What is the weather in {city}?"})
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    messages.append({"role": "user", "content": "What is the weather in Paris?"})
    return {
        "model": CHAT_MODEL,
        "messages": messages,
        "tools": [{"type": "function", "function": WEATHER}],
        "tool_choice": "required",
        "temperature": 0,
        "seed": randrange(2**31),
        "max_tokens": 64,
        **more,
    }


def text(chunks: Iterable[ChatCompletionChunk], index: int = 0) -> str:
    """The text that a choice's chunks amount to."""
    deltas = (choice.delta.content for chunk in chunks for choice in chunk.choices if choice.index == index)
    return "".join(delta or "" for delta in deltas)
