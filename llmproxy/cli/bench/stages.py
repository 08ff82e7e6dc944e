"""The stages of a run, each with its share of the time. What is begun when the time is over is finished."""

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from llmproxy.cli.bench.asker import Asker, Task
from llmproxy.cli.bench.figures import Figures, Repeats, Timed
from llmproxy.cli.bench.questions import Popular

MOST_AT_ONCE = 16
#: popular questions, at least and at most; how many callers ask them at once; new ones have higher numbers
_LEAST_POPULAR, _MOST_POPULAR, _POPULAR_CALLERS = 3, 50, 4
#: prompts of the batch
_LEAST, _MOST = 4, 1000
#: a job gets so many times its share, and this many seconds at least, before it is given up
_PATIENCE, _PATIENCE_SECONDS = 5.0, 60.0


@dataclass
class BenchRun:
    """What the stages share. ``answered`` is told of every answer."""

    ask: Asker
    answered: Callable[[], None]
    #: numbers of questions that nobody asked yet
    fresh: "itertools.count[int]" = field(default_factory=lambda: itertools.count(_MOST_POPULAR))
    #: answers a second, of the quickest stage so far
    pace: float = 0.0
    repeats: Repeats = field(default_factory=Repeats)

    def add(self, figures: Figures, timed: Timed, answers: int = 1) -> None:
        figures.add(timed, answers)
        self.answered()


_Measure = Callable[[BenchRun, Figures, float], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Stage:
    """``share`` of the whole run's seconds; ``jobs`` says whether it needs background jobs."""

    name: str
    share: float
    measure: _Measure
    jobs: bool = False


async def measured(stage: Stage, run: BenchRun, seconds: float) -> Figures:
    """The stage's figures, after ``seconds`` or a little more."""
    figures = Figures(stage.name)
    began = perf_counter()
    await stage.measure(run, figures, seconds)
    figures.seconds = figures.seconds or perf_counter() - began
    return figures


async def _twice(run: BenchRun, figures: Figures, seconds: float) -> None:
    """Question after question, each of them twice: what a generation takes, and what its repeat does."""
    until = perf_counter() + seconds
    while figures.untouched or (perf_counter() < until and not figures.hopeless):
        number = next(run.fresh)
        for _ in range(2):
            run.add(figures, await run.ask.chat(number))


def _at_once(callers: int) -> _Measure:
    async def measure(run: BenchRun, figures: Figures, seconds: float) -> None:
        """New questions only, from so many callers at once."""
        until, began = perf_counter() + seconds, perf_counter()

        async def call() -> None:
            while True:
                run.add(figures, await run.ask.chat(next(run.fresh)))
                if figures.hopeless or perf_counter() >= until:
                    return

        await _together(call, callers)
        figures.seconds = perf_counter() - began
        run.pace = max(run.pace, figures.rate)

    return measure


async def _background(run: BenchRun, figures: Figures, seconds: float) -> None:
    """Task after task: how long its acceptance takes, and the whole of it."""
    until = perf_counter() + seconds
    while figures.untouched or (perf_counter() < until and not figures.hopeless):
        accepted, id = await run.ask.accepted([next(run.fresh)])
        run.add(figures, Timed(accepted.seconds, "accepted", accepted.error), answers=0)
        if not accepted.error:
            task = await run.ask.finished(id, _patience(seconds))
            run.add(figures, Timed(task.took, "finished", task.error))


async def _batch(run: BenchRun, figures: Figures, seconds: float) -> None:
    """One task with as many prompts as fit into the time at half of the best pace so far."""
    count = min(max(_LEAST, int(run.pace * seconds / 2)), _MOST)
    accepted, id = await run.ask.accepted([next(run.fresh) for _ in range(count)])
    task = await run.ask.finished(id, _patience(seconds)) if not accepted.error else Task(0.0, 0, accepted.error)
    if task.completed:
        run.add(figures, Timed(task.took, "finished"), task.completed)
    if task.error:
        run.add(figures, Timed(task.took, error=task.error))
    figures.seconds = task.took


async def _popular(run: BenchRun, figures: Figures, seconds: float) -> None:
    """Few questions, some far more often than others, from some callers: how many of them need a generation.

    They are as many as the model answers in a third of the time, so that there is time for repeats.
    """
    count = min(max(_LEAST_POPULAR, int(run.pace * seconds / 3)), _MOST_POPULAR)
    until, popular, seen = perf_counter() + seconds, Popular(count, random.Random(0)), set[int]()

    async def call() -> None:
        while True:
            number = popular.pick()
            again = number in seen
            seen.add(number)
            answer = await run.ask.chat(number)
            run.add(figures, answer)
            run.repeats.asked += 1
            run.repeats.new += not again
            run.repeats.spared += again and not answer.error and answer.cache in ("hit", "joined")
            if figures.hopeless or perf_counter() >= until:
                return

    await _together(call, _POPULAR_CALLERS)


STAGES = (
    Stage("the same twice", 0.15, _twice),
    Stage("1 at a time", 0.15, _at_once(1)),
    Stage("4 at once", 0.15, _at_once(4)),
    Stage("16 at once", 0.2, _at_once(MOST_AT_ONCE)),
    Stage("background", 0.1, _background, jobs=True),
    Stage("batch", 0.1, _batch, jobs=True),
    Stage("popular", 0.15, _popular),
)


async def _together(call: Callable[[], Coroutine[Any, Any, None]], callers: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())


def _patience(seconds: float) -> float:
    return max(_PATIENCE_SECONDS, _PATIENCE * seconds)
