"""A stream of events to one client, about a job that any process may work on."""

from time import monotonic

from starlette.types import Send

from llmproxy.api.services import JobServices
from llmproxy.proxy.listen import Client, ClientDisconnected

_PING = b": ping\n\n"


class SseStream:
    """Sends events, and waits for new ones: the rows of ``id`` are read again every ``poll_seconds``, or earlier if
    this process knows that something changed."""

    def __init__(self, id: str, poll_seconds: float, services: JobServices, client: Client, send: Send) -> None:
        self._id = id
        self._poll_seconds = poll_seconds
        self._notifications = services.notifications
        self._ping_seconds = services.proxy.settings.ping_seconds
        self._client = client
        self._send = send
        self._sent_at = monotonic()

    def watch(self) -> None:
        """Has a client that leaves end the waiting."""
        self._client.watch(lambda: self._notifications.job_changed(self._id))

    def raise_if_disconnected(self) -> None:
        """Raises ``ClientDisconnected``."""
        if self._client.disconnected:
            raise ClientDisconnected

    @property
    def stopping(self) -> bool:
        """Whether the server stops: the job continues, but not this stream."""
        return self._notifications.closed

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._sent_at = monotonic()

    async def poll(self) -> None:
        """Waits until it is time to read again; a client that got nothing for long gets a comment."""
        await self._notifications.wait_for_job(self._id, self._poll_seconds)
        if self._ping_seconds and monotonic() - self._sent_at >= self._ping_seconds:
            await self.send(_PING)
