"""What is asked: short questions that differ by a number, some asked far more often than others."""

import random
from itertools import accumulate
from typing import Any

Body = dict[str, Any]


def question(number: int) -> str:
    """The same words for the same number."""
    return f"In one sentence, what is the number {number} good for?"


def chat(model: str, number: int, max_tokens: int, **more: Any) -> Body:
    """The body of a chat completion. Its temperature is 0, so that every policy but ``opt-in`` and ``off`` keeps it."""
    messages = [{"role": "user", "content": question(number)}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, **more}


class Popular:
    """Numbers below ``count``, as what people ask for is spread (Zipf): the k-th comes 1/k as often as the first."""

    def __init__(self, count: int, chance: random.Random) -> None:
        self._numbers = range(count)
        self._weights = list(accumulate(1 / rank for rank in range(1, count + 1)))
        self._chance = chance

    def pick(self) -> int:
        return self._chance.choices(self._numbers, cum_weights=self._weights)[0]
