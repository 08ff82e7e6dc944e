"""The steps of the tour. Each asks through the official client and checks that the answer is what it should be."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Barrier

import httpx
import openai
from openai.types.chat import ChatCompletionMessageParam

from llmproxy.cli.demo.servers import CHAT_MODEL, EMBEDDING_MODEL, Stack

DIMENSIONS = 576
AT_ONCE = 10

_TIMEOUT = 60.0
_MAX_TOKENS = 96
_SKY = "In two sentences, why is the sky blue?"
# long enough that the model still writes when a busy machine lets us read its first word
_STORY = "Tell me a long story about the sea."
_STORY_TOKENS = 192
_MOON = "In two sentences, what is the moon made of?"
_CAT = "The cat sat on the mat."


@dataclass(frozen=True)
class TourStep:
    """A row of the tour. Times are seconds; ``speed_up`` is over the step that asked the upstream the same.

    ``flaw`` says what is not as it should be.
    """

    question: str
    cache: str = ""
    first: float | None = None
    total: float = 0.0
    speed_up: float | None = None
    flaw: str | None = None


@dataclass(frozen=True)
class ObservedAnswer:
    """One answer as the client saw it. ``value`` is what must be equal when it is asked for again.

    ``live`` says that the upstream was still writing when the first token was here.
    """

    value: object
    cache: str
    total: float
    first: float | None = None
    tokens: int = 0
    live: bool = False


class Tour:
    """``answer`` is the text of the model's first answer."""

    def __init__(self, client: openai.OpenAI, stack: Stack):
        self._client = client
        self._stack = stack
        self.answer = ""

    def steps(self) -> Iterator[TourStep]:
        """The steps as they are done. After an error that leaves nothing to compare with, the tour ends."""
        self._client.models.list()
        for walk in (self._chat, self._stream, self._crowd, self._embeddings, self._flush):
            try:
                yield from walk()
            except (openai.OpenAIError, httpx.HTTPError) as error:
                yield TourStep(walk.__name__.strip("_"), flaw=str(error))
                return

    def _chat(self) -> Iterator[TourStep]:
        miss = self._ask(_SKY)
        self.answer = str(miss.value)
        yield _step("a question", miss, "MISS")
        yield _step("the same question", self._ask(_SKY), "HIT", like=miss)

    def _stream(self) -> Iterator[TourStep]:
        """llama.cpp's own gauge tells whether it still writes. The client's clock cannot: on a busy machine pieces come
        in one, and a proxy that held the answer back could still send it in pieces."""
        miss = self._ask_streamed(_STORY, watched=True)
        yield _step("a question, streamed", miss, "MISS", live=True)
        yield _step("the same stream again", self._ask_streamed(_STORY), "HIT", like=miss)
        yield _step("the same, not streamed", self._ask(_STORY, _STORY_TOKENS), "HIT", like=miss)

    def _crowd(self) -> Iterator[TourStep]:
        """llama.cpp's own counter tells how many answers it wrote."""
        before = self._llama("tokens_predicted_total")
        started = time.perf_counter()
        gate = Barrier(AT_ONCE)

        def ask(_: int) -> ObservedAnswer:
            gate.wait()
            return self._ask(_MOON)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            crowd = list(pool.map(ask, range(AT_ONCE)))
        counts = Counter(seen.cache for seen in crowd)
        step = TourStep(
            f"one question, {AT_ONCE} at once",
            ", ".join(f"{count} {cache}" for cache, count in sorted(counts.items(), key=lambda pair: pair[1])),
            total=time.perf_counter() - started,
        )
        written = self._llama("tokens_predicted_total") - before
        if counts["MISS"] != 1 or len({seen.value for seen in crowd}) != 1:
            step = replace(step, flaw=f"should be one upstream call and one answer, not {dict(counts)}")
        elif written != crowd[0].tokens:
            step = replace(step, flaw=f"the upstream wrote {written} tokens, not {crowd[0].tokens}")
        yield step

    def _embeddings(self) -> Iterator[TourStep]:
        miss = self._embed(_CAT)
        step = _step(f"an embedding ({DIMENSIONS} numbers)", miss, "MISS")
        if miss.tokens != DIMENSIONS:
            step = replace(step, flaw=f"should have {DIMENSIONS} numbers, not {miss.tokens}")
        yield step
        yield _step("the same embedding", self._embed(_CAT), "HIT", like=miss)

    def _flush(self) -> Iterator[TourStep]:
        started = time.perf_counter()
        url = f"{self._stack.url}/admin/cache/flush"
        answer = httpx.post(url, json={"all": True}, trust_env=False, timeout=_TIMEOUT)
        total = time.perf_counter() - started
        flushed = answer.raise_for_status().json()["flushed"]
        flaw = None if flushed == 4 else f"should remove 4 entries, not {flushed}"
        yield TourStep(f"a flush: {flushed} entries gone", total=total, flaw=flaw)
        yield _step("the first question again", self._ask(_SKY), "MISS")

    def _ask(self, question: str, max_tokens: int = _MAX_TOKENS) -> ObservedAnswer:
        started = time.perf_counter()
        raw = self._client.chat.completions.with_raw_response.create(
            model=CHAT_MODEL, messages=_messages(question), max_tokens=max_tokens
        )
        answer = raw.parse()
        total = time.perf_counter() - started
        tokens = answer.usage.completion_tokens if answer.usage else 0
        return ObservedAnswer(answer.choices[0].message.content, raw.headers.get("x-cache", ""), total, tokens=tokens)

    def _ask_streamed(self, question: str, *, watched: bool = False) -> ObservedAnswer:
        """``watched`` looks at the upstream once, in the middle of the answer."""
        started = time.perf_counter()
        raw = self._client.chat.completions.with_raw_response.create(
            model=CHAT_MODEL, messages=_messages(question), max_tokens=_STORY_TOKENS, stream=True
        )
        first = None
        live = False
        text = ""
        for chunk in raw.parse():
            piece = chunk.choices[0].delta.content if chunk.choices else None
            if piece and first is None:
                first = time.perf_counter() - started
                live = watched and self._llama("requests_processing") > 0
            text += piece or ""
        total = time.perf_counter() - started
        return ObservedAnswer(text, raw.headers.get("x-cache", ""), total, first, live=live)

    def _embed(self, text: str) -> ObservedAnswer:
        started = time.perf_counter()
        raw = self._client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=text)
        vector = tuple(raw.parse().data[0].embedding)
        total = time.perf_counter() - started
        return ObservedAnswer(vector, raw.headers.get("x-cache", ""), total, tokens=len(vector))

    def _llama(self, name: str) -> int:
        """One of the chat server's own figures. Raises ``httpx.HTTPError``."""
        page = httpx.get(f"{self._stack.chat}/metrics", trust_env=False, timeout=_TIMEOUT).raise_for_status().text
        line = next(line for line in page.splitlines() if line.startswith(f"llamacpp:{name} "))
        return int(float(line.split()[1]))


def _messages(question: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": question}]


def _step(
    question: str, answer: ObservedAnswer, cache: str, *, like: ObservedAnswer | None = None, live: bool = False
) -> TourStep:
    """The row for an answer that should be ``cache``, equal to ``like`` and, if ``live``, seen while it was written."""
    flaw = None
    if answer.cache != cache:
        flaw = f"should be {cache}"
    elif like is not None and answer.value != like.value:
        flaw = "should be the same answer"
    elif not answer.value:
        flaw = "should not be empty"
    elif live and not answer.live:
        flaw = "should come while it is written"
    speed_up = like.total / answer.total if like is not None else None
    return TourStep(question, answer.cache, answer.first, answer.total, speed_up, flaw)
