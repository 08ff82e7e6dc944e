"""Stored chat completions by their ids, in lists, and their messages, through the official client."""

from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from tests.api.chats.asking import chat, parse_metadata, stored
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

PATH = "/v1/chat/completions"
UNKNOWN = "chatcmpl-" + "0" * 32


def ids(page: Any) -> list[str]:
    return [each.id for each in page]


def test_a_list_is_read_page_by_page_in_either_order(client: openai.OpenAI) -> None:
    label = {"test": marker()}
    made = [stored(client, marker(), metadata=label).id for _ in range(5)]
    ask = client.chat.completions.list
    assert ids(ask(metadata=label)) == made
    assert ids(ask(metadata=label, limit=2)) == made
    assert ids(ask(metadata=label, limit=2, order="desc")) == made[::-1]
    page = ask(metadata=label, limit=2, after=made[1])
    assert (ids(page.data), page.has_more) == (made[2:4], True)
    last = ask(metadata=label, limit=1, after=made[3])
    assert (ids(last.data), last.has_more) == (made[4:], False)


def test_a_list_says_where_it_begins_and_ends(client: openai.OpenAI, front: Proxy) -> None:
    label = marker()
    made = [stored(client, marker(), metadata={"test": label}).id for _ in range(2)]
    asked = {"metadata[test]": label}
    page = httpx.get(f"{front.url}{PATH}", params=asked, trust_env=False).json()
    assert [each["id"] for each in page.pop("data")] == made
    assert page == {"object": "list", "first_id": made[0], "last_id": made[1], "has_more": False}
    none = httpx.get(f"{front.url}{PATH}", params={"metadata[test]": marker()}, trust_env=False).json()
    assert none == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_what_is_listed_can_be_deleted_on_the_way(client: openai.OpenAI) -> None:
    label = {"test": marker()}
    made = [stored(client, marker(), metadata=label).id for _ in range(5)]
    on_the_way = client.chat.completions.list(metadata=label, limit=2)
    assert [client.chat.completions.delete(each.id).id for each in on_the_way] == made
    assert ids(client.chat.completions.list(metadata=label)) == []


def test_a_list_can_be_narrowed(client: openai.OpenAI) -> None:
    test = marker()
    rows: list[tuple[str, dict[str, str]]] = [
        ("one", {"a": "1", 'q"': "x,y"}),
        ("one", {"a": "2"}),
        ("two", {"a": "1"}),
    ]
    made = [stored(client, marker(), model=model, metadata={"test": test, **labels}).id for model, labels in rows]

    def found(labels: dict[str, str], **more: Any) -> list[str]:
        return ids(client.chat.completions.list(metadata={"test": test, **labels}, **more))

    assert found({}) == made
    assert found({}, model="one") == made[:2]
    assert found({"a": "1"}) == [made[0], made[2]]
    assert found({"a": "1"}, model="two") == [made[2]]
    assert found({"a": "1", 'q"': "x,y"}) == [made[0]]
    assert found({"a": "3"}) == []


def test_labels_can_be_replaced(client: openai.OpenAI) -> None:
    made = stored(client, marker(), metadata={"a": "1", "b": "2"})
    changed = client.chat.completions.update(made.id, metadata={"test": made.id})
    assert parse_metadata(changed) == {"test": made.id}
    assert changed == client.chat.completions.retrieve(made.id)
    assert changed.choices == made.choices
    assert ids(client.chat.completions.list(metadata={"test": made.id})) == [made.id]
    assert parse_metadata(client.chat.completions.update(made.id, metadata=None)) == {}
    assert parse_metadata(client.chat.completions.retrieve(made.id)) == {}


def test_an_update_that_is_none_changes_nothing(client: openai.OpenAI, front: Proxy) -> None:
    made = stored(client, marker(), metadata={"a": "1"})
    for body, param in (({}, "metadata"), ({"metadata": {"a": 1}}, "metadata.a"), ({"metadata": "a"}, "metadata")):
        answer = httpx.post(f"{front.url}{PATH}/{made.id}", json=body, trust_env=False)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    large = httpx.post(f"{front.url}{PATH}/{made.id}", content=b" " * 300_000, trust_env=False)
    assert large.status_code == 413
    assert parse_metadata(client.chat.completions.retrieve(made.id)) == {"a": "1"}


def test_it_can_be_deleted(client: openai.OpenAI) -> None:
    made = stored(client, marker())
    gone = client.chat.completions.delete(made.id)
    assert gone.to_dict() == {"object": "chat.completion.deleted", "id": made.id, "deleted": True}
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)


@pytest.mark.parametrize("id", [UNKNOWN, "chatcmpl-123", "chatcmpl-\0", "chatcmpl-" + "x" * 300])
def test_nobody_knows_an_unknown_id(client: openai.OpenAI, id: str) -> None:
    of: Any = client.chat.completions
    asks: list[Callable[[], Any]] = [
        lambda: of.retrieve(id),
        lambda: of.delete(id),
        lambda: of.update(id, metadata={}),
        lambda: of.messages.list(id),
    ]
    for ask in asks:
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.body == {
            "message": f"Chat completion with id '{id[:100]}' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
        }


def test_a_response_is_no_chat_completion(client: openai.OpenAI) -> None:
    response = client.responses.create(model="m", input=marker())
    for ask in (client.chat.completions.retrieve, client.chat.completions.delete):
        with pytest.raises(openai.NotFoundError):
            ask(response.id)
    assert client.responses.retrieve(response.id) == response


def test_its_messages_can_be_listed(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    said: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "ann", "content": parts},
        {"role": "assistant", "content": "A letter."},
        {"role": "user", "content": marker()},
    ]
    made = stored(client, "", messages=said)
    listed = list(client.chat.completions.messages.list(made.id))
    assert [each.to_dict() for each in listed] == [
        {"id": f"{made.id}-0", **said[0], "content_parts": None},
        {"id": f"{made.id}-1", **said[1], "content": None, "content_parts": parts},
        {"id": f"{made.id}-2", **said[2], "content_parts": None},
        {"id": f"{made.id}-3", **said[3], "content_parts": None},
    ]
    backwards = client.chat.completions.messages.list(made.id, order="desc", limit=3)
    assert (ids(backwards.data), backwards.has_more) == (ids(listed)[:0:-1], True)
    assert ids(backwards) == ids(listed)[::-1]
    assert ids(client.chat.completions.messages.list(made.id, after=listed[2].id)) == [listed[3].id]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "chatcmpl-1"}, "after"),
        ({"metadata[a]": "x" * 513}, "metadata.a"),
        ({f"metadata[{n}]": "x" for n in range(17)}, "metadata"),
    ],
)
def test_a_query_that_is_none_is_refused(
    client: openai.OpenAI, front: Proxy, query: dict[str, str], param: str
) -> None:
    made = stored(client, marker())
    paths = [PATH] if param.startswith("metadata") else [PATH, f"{PATH}/{made.id}/messages"]
    for path in paths:
        answer = httpx.get(f"{front.url}{path}", params=query, trust_env=False)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/input_tokens"), ("POST", "/control"), ("PUT", ""), ("POST", "/chatcmpl-1/messages")]
)
def test_what_is_not_ours_passes_through(front: Proxy, upstream: ScriptedUpstream, method: str, path: str) -> None:
    word = marker()
    answer = httpx.request(method, f"{front.url}{PATH}{path}?{word}", json=chat(word), trust_env=False)
    assert len(upstream.visits(word)) == 1
    assert answer.headers["x-cache"] == "BYPASS"
