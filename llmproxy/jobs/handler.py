"""What does the work of an item: one for each kind of job and step, in the table of ``opening``."""

from collections.abc import Awaitable, Callable, Mapping

from llmproxy.jobs.cancellation import CancelToken
from llmproxy.jobs.job import Claimed, ItemResult, Reschedule
from llmproxy.jobs.states import JobKind, Step

#: Does an item's work while it holds the lease. Ends soon after ``CancelToken.leave``, with whatever result: it will
#: not count. Raises ``ProxyError`` for what may pass: the item is put off.
Handler = Callable[[Claimed, CancelToken], Awaitable[ItemResult | Reschedule]]

Handlers = Mapping[tuple[JobKind, Step], Handler]
