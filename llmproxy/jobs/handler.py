"""What does the work of an item: one for each kind of job and step, in the table of ``opening``."""

from collections.abc import Awaitable, Callable, Mapping

from llmproxy.jobs.job import Claimed, PutOff, Result
from llmproxy.jobs.patience import Patience
from llmproxy.jobs.states import JobKind, Step

#: Does an item's work while it holds the lease. Ends soon after ``Patience.leave``, with whatever result: it will not
#: count. Raises ``ProxyError`` for what may pass: the item is put off.
Handler = Callable[[Claimed, Patience], Awaitable[Result | PutOff]]

Handlers = Mapping[tuple[JobKind, Step], Handler]
