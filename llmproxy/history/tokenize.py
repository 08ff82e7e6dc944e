"""Texts as the words they are found by: runs of letters and digits of any script, whatever their case. Pure.

Scripts that put no spaces between words are taken character by character, so that any part of a sentence is found as
a phrase. Punctuation parts words: ``messages[0].content`` is the phrase "messages 0 content".
"""

import re
from unicodedata import normalize

#: a longer word, a hash or encoded data, is cut
LONGEST_WORD = 100

# Thai, Lao, Tibetan, Myanmar, Khmer; kana, bopomofo, Han with its extensions
_SPACELESS = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# signs that Python counts as no letters, although words of Indic and other scripts consist of them; not the danda
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
)
_WORD = re.compile(f"[{_SPACELESS}]|(?:[^\\W_{_SPACELESS}]|[{_MARKS}])+")
_ASCII_WORD = re.compile("[a-z0-9]+")
# Signs in a row that no text has: putting them in order costs the square of their number. The two halfwidth signs are
# letters that become such signs. After thirty a space is put in, as Unicode's stream-safe format puts in a joiner
# (UAX #15, D4).
_STACK = re.compile("(?:[^\\w\\s\x00-\x7f]|[\uff9e\uff9f]){30}")


def words_of(text: str) -> list[str]:
    """The words of a text in order, in lower case, each form of a letter the same."""
    if text.isascii():
        found = _ASCII_WORD.findall(text.lower())
    else:
        found = _WORD.findall(compatible(compatible(text).casefold()))
    return [word[:LONGEST_WORD] for word in found]


def compatible(text: str) -> str:
    """The text with each form of a letter the same (NFKC)."""
    return normalize("NFKC", _STACK.sub(r"\g<0> ", text))


def phrases_of(query: str) -> list[list[str]]:
    """What a person asks for: each part between spaces is a phrase. Nothing in it is an operator."""
    return [phrase for part in query.split() if (phrase := words_of(part))]
