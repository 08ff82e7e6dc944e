import json

from llmproxy.history.text_index import MOST_BYTES, MOST_WORDS, spoken_words


def said(request: object, response: object = None) -> str:
    return " ".join(spoken_words(json.dumps(request).encode(), json.dumps(response).encode()))


def test_prompts_and_answers_are_said_and_bookkeeping_is_not() -> None:
    request = {
        "model": "smollm2",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url"}]},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "never"}}],
        "user": "ann",
        "temperature": 0.5,
    }
    answer = {
        "id": "chatcmpl-1",
        "choices": [
            {"message": {"role": "assistant", "content": "A tree.", "reasoning": "Leaves"}, "finish_reason": "stop"}
        ],
    }
    assert said(request, answer) == "be brief what is this a tree leaves"


def test_every_endpoint_has_its_texts() -> None:
    assert said({"prompt": "once", "suffix": "end"}, {"choices": [{"text": "upon"}]}) == "once end upon"
    assert said({"input": ["one", "two"]}, {"data": [{"embedding": "AAAA"}]}) == "one two"
    output = {"output": [{"type": "message", "content": [{"type": "output_text", "text": "yes"}]}]}
    assert said({"input": "go", "instructions": "do"}, output) == "go do yes"
    assert said({"query": "q", "documents": ["d"]}, {"results": [{"index": 0}]}) == "q d"
    assert said({"messages": [{"content": "hi"}]}, {"message": {"content": "ho"}}) == "hi ho"


def test_data_is_no_text() -> None:
    assert said({"input": "A" * 3_000, "prompt": "word " * 3}) == "word word word"


def test_a_body_that_was_cut_has_its_words_without_escapes() -> None:
    body = json.dumps({"prompt": "été\nline two"}).encode()[:-3]
    assert spoken_words(body, None) == ["prompt", "été", "line", "tw"]


def test_of_a_long_body_the_beginning_and_the_end_are_kept() -> None:
    words = spoken_words(
        json.dumps({"prompt": " ".join(f"w{number}" for number in range(3 * MOST_WORDS))}).encode(), None
    )
    assert len(words) == MOST_WORDS
    assert (words[0], words[-1]) == ("w0", f"w{3 * MOST_WORDS - 1}")


def test_of_long_words_as_many_are_kept_as_a_database_takes() -> None:
    """Each letter becomes four: 100 letters, 200 bytes, and no two words are the same."""
    words = spoken_words(
        json.dumps(
            {"prompt": " ".join(f"{number:05}" + "\ufdf2" * 25 for number in range(8_000))}, ensure_ascii=False
        ).encode(),
        None,
    )
    assert sum(len(word.encode()) for word in words) <= MOST_BYTES
    assert (words[0][:5], words[-1][:5]) == ("00000", "07999")


def test_a_body_nested_deeply_does_no_harm() -> None:
    assert spoken_words(b"[" * 900 + b'"deep"' + b"]" * 900, b"") == ["deep"]


def test_nothing_was_said_in_no_body() -> None:
    assert spoken_words(None, b"") == []
