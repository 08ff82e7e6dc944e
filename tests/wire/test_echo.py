"""What an answer repeats of its request, and what makes it its caller's own."""

from llmproxy.wire.echo import OWN, echo_of, event_with_echo, with_echo


def test_what_the_answer_does_not_have_it_does_not_get() -> None:
    document: dict[str, object] = {"output": []}
    assert with_echo(document, echo_of({"user": "ann", "metadata": {"a": "b"}})) is document


def test_each_caller_gets_their_own_labels() -> None:
    document = {"user": "ann", "metadata": {"a": "b"}, "output": []}
    assert with_echo(document, echo_of({"user": "bob"})) == {"user": "bob", "metadata": {}, "output": []}
    assert document["user"] == "ann"


def test_an_answer_of_ones_own_says_so_even_where_the_upstreams_has_no_word_for_it() -> None:
    own = {"id": "resp_2", "store": True, "background": False, "previous_response_id": None}
    assert own.keys() == OWN
    assert with_echo({"id": "resp_1"}, own) == own
    assert with_echo(own, own) is own


def test_every_chunk_of_a_chat_is_its_callers_own() -> None:
    own = {**echo_of({}), "id": "chatcmpl-2"}
    chunks: list[dict[str, object]] = [{"id": "chatcmpl-1", "choices": []}, {"choices": []}, {"id": "1", "usage": {}}]
    for chunk in chunks:
        assert event_with_echo(chunk, own) == {**chunk, "id": "chatcmpl-2"}
    error: dict[str, object] = {"error": {"message": "no"}}
    assert event_with_echo(error, own) is error


def test_of_a_responses_events_only_those_that_hold_it_are() -> None:
    own = {"id": "resp_2"}
    begun = {"type": "response.created", "response": {"id": "resp_1"}}
    assert event_with_echo(begun, own) == {"type": "response.created", "response": {"id": "resp_2"}}
    added = {"type": "response.output_item.added", "id": "event_1", "item": {"id": "msg_1"}}
    assert event_with_echo(added, own) is added
