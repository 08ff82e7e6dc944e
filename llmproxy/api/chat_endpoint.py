"""``POST /v1/chat/completions`` where answers are kept on demand: one with ``store: true`` gets an id of its own."""

from dataclasses import replace
from typing import Any

from llmproxy.api.chat import ChatId
from llmproxy.api.services import JobServices
from llmproxy.jobs.stored import StoredAnswers
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer, dump_labels, parse_metadata
from llmproxy.proxy.endpoint import Incoming, Prepared
from llmproxy.proxy.offload import offload
from llmproxy.proxy.request import CacheableRequest
from llmproxy.wire.documents import dump, peek
from llmproxy.wire.echo import echo_of, with_echo
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.json_body import canonical
from llmproxy.wire.vocabulary import Reason


async def keep_chat(incoming: Incoming) -> Prepared:
    """What the row ``chat`` of the table of endpoints does ahead of the cache if its answers are kept on demand."""
    request = await incoming.parse()
    if not request.parsed.store:
        return Prepared(request)
    services: JobServices = incoming.scope["state"]["jobs"]
    keeping = await offload(len(request.raw), Keeping, request, incoming.exchange, services.answers)
    return Prepared(keeping.request, keeping.keep, is_repeatable=False)


class Keeping:
    """One answer on its way to become one that can be asked for again. ``request`` is the request for it under its id.

    Raises ``BadRequest`` for labels that are none.
    """

    def __init__(self, request: CacheableRequest, exchange: Exchange, answers: StoredAnswers) -> None:
        self._body = request.body()
        self._labels = parse_metadata(self._body.get("metadata"))
        self._id = ChatId.new(exchange.started_at)
        self._echo: dict[str, Any] = {**echo_of(self._body), "id": self._id.text}
        self._exchange = exchange
        self._answers = answers
        self.request = replace(request, parsed=replace(request.parsed, echo=self._echo))

    def keep(self) -> None:
        """Called with the whole answer in the exchange."""
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
                metadata=dump_labels(self._labels),
            )
        )
