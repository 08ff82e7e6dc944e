"""A run from start to end: look at the proxy, go through the stages, take readings of its process between them."""

import asyncio
from dataclasses import dataclass

from llmproxy.cli.bench.asker import asking
from llmproxy.cli.bench.figures import Figures, Repeats
from llmproxy.cli.bench.offer import Offer, look
from llmproxy.cli.bench.progress import BenchProgress
from llmproxy.cli.bench.stages import MOST_AT_ONCE, STAGES, BenchRun, measured
from llmproxy.cli.bench.usage import ProcessUsage, Used

_SWITCHED_OFF = "this proxy has no background jobs"


@dataclass(frozen=True)
class BenchResult:
    """``used`` is None where the proxy's process cannot be looked at."""

    url: str
    model: str
    stages: list[Figures]
    repeats: Repeats
    used: Used | None


def run(url: str, key: str | None, model: str | None, seconds: float, shown: BenchProgress) -> BenchResult:
    """Measures for about ``seconds``. Raises ``Failure`` where there is nothing to be measured."""
    shown.stage("looking for a model")
    offer = look(url, key, model)
    return asyncio.run(_measure(url, key, offer, seconds, shown))


async def _measure(url: str, key: str | None, offer: Offer, seconds: float, shown: BenchProgress) -> BenchResult:
    usage = await asyncio.to_thread(ProcessUsage, url)
    await asyncio.to_thread(usage.read)
    stages = []
    async with asking(url, key, offer, MOST_AT_ONCE) as ask:
        run = BenchRun(ask, shown.answered)
        for stage in STAGES:
            if stage.jobs and not offer.jobs:
                stages.append(Figures(stage.name, skipped=_SWITCHED_OFF))
                continue
            shown.stage(stage.name)
            stages.append(await measured(stage, run, stage.share * seconds))
            await asyncio.to_thread(usage.read)
    return BenchResult(url, offer.model, stages, run.repeats, usage.used)
