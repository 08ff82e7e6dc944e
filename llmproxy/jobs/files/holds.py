"""Which blobs are still needed although their files may be deleted: a batch reads its input some time after it was
accepted, and callers delete the file as soon as it was."""

import json

from sqlalchemy import literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs.states import STEP_PRIORITIES, ItemStatus, Step
from llmproxy.jobs.tables import items, jobs

# the statuses stand in the statements' text, where the partial indexes need them; the priority picks the few steps
# out of the many calls that wait
_WAITING = (
    items.c.status == literal_column(f"'{ItemStatus.WAITING}'"),
    items.c.priority == STEP_PRIORITIES[Step.VALIDATE],
)
_RUNNING = (items.c.status == literal_column(f"'{ItemStatus.RUNNING}'"),)

#: of a batch's steps those that read its input file
_READING = (Step.VALIDATE, Step.FINALIZE)


async def held(connection: AsyncConnection) -> set[str]:
    """Names of the blobs that batches name in their detail whose input was not read to its end yet.

    One that was ended before that reads the rest of it in its last step: those requests are listed as not done.
    """
    names: set[str] = set()
    for status in (_WAITING, _RUNNING):
        reading = select(jobs.c.detail).join(items, items.c.job_id == jobs.c.id)
        reading = reading.where(*status, items.c.step.in_(_READING))
        for detail in (await connection.execute(reading)).scalars():
            name = json.loads(detail).get("blob")
            if name is not None:
                names.add(name)
    return names
