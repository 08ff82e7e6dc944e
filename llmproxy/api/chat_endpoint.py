"""``POST /v1/chat/completions`` where answers are kept on demand: one with ``store: true`` gets an id of its own."""

from dataclasses import replace
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from llmproxy.api.chat import ChatId
from llmproxy.api.services import JobServices
from llmproxy.jobs.stored import StoredAnswers
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer, labels_of, written
from llmproxy.proxy.deliver import deliver
from llmproxy.proxy.endpoint import ask, listening, remember
from llmproxy.proxy.offload import offload
from llmproxy.proxy.pipeline import handle
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Whole
from llmproxy.wire.documents import dump, peek
from llmproxy.wire.echo import echo_of, with_echo
from llmproxy.wire.endpoints import Endpoint
from llmproxy.wire.exchange import EXCHANGE, Exchange
from llmproxy.wire.json_body import canonical
from llmproxy.wire.vocabulary import Reason


class ChatsEndpoint:
    """The row ``chat`` of the table of endpoints, as an ASGI application. Mounted without anything in between."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: JobServices = scope["state"]["jobs"]
        exchange: Exchange = scope[EXCHANGE]
        exchange.endpoint = self._endpoint.name
        with listening(receive, exchange) as client:
            request = await ask(self._endpoint, scope, receive)
            keeping = None
            if request.parsed.store:
                keeping = await offload(len(request.raw), Keeping, request, exchange, services.answers)
                request, send = keeping.request, keeping.around(send)
            answer = await handle(exchange, request, services.proxy, client)
            if keeping is None and isinstance(answer, Whole):
                remember(scope, exchange, request, services.proxy)
            await deliver(answer, exchange, client, send, services.proxy.settings.ping_seconds)


class Keeping:
    """One answer on its way to become one that can be asked for again. ``request`` is the request for it under its id.

    Raises ``BadRequest`` for labels that are none.
    """

    def __init__(self, request: CacheableRequest, exchange: Exchange, answers: StoredAnswers) -> None:
        self._body = request.body()
        self._labels = labels_of(self._body.get("metadata"))
        self._id = ChatId.new(exchange.started_at)
        self._echo: dict[str, Any] = {**echo_of(self._body), "id": self._id.text}
        self._exchange = exchange
        self._answers = answers
        self.request = replace(request, parsed=replace(request.parsed, echo=self._echo))

    def around(self, send: Send) -> Send:
        """``send``, and the answer is kept before its last bytes: who has seen the end may ask for it at once."""

        async def keeping(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._keep()
            await send(message)

        return keeping

    def _keep(self) -> None:
        exchange, parsed = self._exchange, self.request.parsed
        # there is a body once the whole of it came
        document = peek(exchange.response_body)
        if exchange.stored is Reason.TOO_LARGE and document is None:
            self._answers.lose()
        if document is None or self.request.endpoint.dialect.flaw(document) is not None:
            return
        own = {"object": "chat.completion", "request_id": exchange.request_id}
        messages = self._body.get("messages")
        self._answers.keep(
            StoredAnswer(
                id=self._id.text,
                kind=AnswerKind.CHAT,
                scope=exchange.caller.owner,
                model=parsed.model,
                created_at=self._id.time,
                request=canonical(self._body, {"messages"}),
                input=dump(messages if isinstance(messages, list) else []),
                document=dump(with_echo(document, self._echo) | own),
                stream=parsed.stream,
                metadata=written(self._labels),
            )
        )
