import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.history.text_index import LONGEST_WORD, phrases_of, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("foo_bar.baz(x1)", ["foo", "bar", "baz", "x1"]),
        ("ΟΔΥΣΣΕΎΣ straße", ["οδυσσεύσ", "strasse"]),
        ("cafe\u0301 caf\u00e9", ["caf\u00e9", "caf\u00e9"]),
        ("ﬁne ① Ａ", ["fine", "1", "a"]),
        ("東京 大学です", ["東", "京", "大", "学", "で", "す"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("हिन्दी में।", ["हिन्दी", "में"]),
        ("\u05e9\u05c1\u05dc\u05d5\u05dd \u05de", ["\u05e9\u05c1\u05dc\u05d5\u05dd", "\u05de"]),
        ("الكِتاب", ["الكِتاب"]),
        ("ภาษา", ["ภ", "า", "ษ", "า"]),
        ("в лесу", ["в", "лесу"]),
        ("--- ... \0", []),
    ],
)
def test_words_of_all_scripts(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_a_long_word_is_cut() -> None:
    assert words_of("a" * 1000) == ["a" * LONGEST_WORD]


@given(st.text())
def test_words_are_letters_and_digits_only(text: str) -> None:
    """They go into queries: nothing in them may be an operator, a quote or a space."""
    for word in words_of(text):
        assert word
        assert not set(word) & set("\"'\\ \t\n\0&|!():*<>-+^{}~_,.;@")


@given(st.text())
def test_case_makes_no_difference(text: str) -> None:
    assert words_of(text.upper().lower()) == words_of(text.upper().casefold())


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_the_quick_way_for_ascii_is_the_ordinary_one(text: str) -> None:
    assert words_of(text) == words_of(f"{text} é")[:-1]


def test_each_part_between_spaces_is_a_phrase() -> None:
    assert phrases_of(' messages[0].content  OR "x" -- ') == [["messages", "0", "content"], ["or"], ["x"]]
