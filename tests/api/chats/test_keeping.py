"""When an answer is kept: before its last bytes are sent, and not earlier."""

from starlette.types import Message

from llmproxy.api.chat import ChatRecorder
from llmproxy.database.engine import Database
from llmproxy.jobs.store import Store
from llmproxy.jobs.stored import StoredAnswers
from llmproxy.jobs.stored_model import AnswerKind
from llmproxy.proxy.deliver import deliver
from llmproxy.proxy.request import BodyMemo, CacheableRequest
from llmproxy.proxy.response import Whole
from llmproxy.upstream.headers import Peer
from llmproxy.wire.cache_headers import Directives
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.exchange import Exchange
from tests.proxy.test_life import Patient

PATH = "/v1/chat/completions"
REQUEST = b'{"model":"m","messages":[],"store":true,"metadata":{"a":"b"}}'
ANSWER = b'{"id":"1","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}'


def ignore() -> None:
    """Nothing is lost here."""


async def test_who_sees_the_end_can_ask_for_it_at_once(sqlite: Database) -> None:
    endpoint = BY_PATH[PATH]
    parsed = await BodyMemo().parsed(endpoint, REQUEST)
    request = CacheableRequest(endpoint, parsed, Directives(), REQUEST, PATH.encode(), [], Peer("127.0.0.1"))
    exchange = Exchange("r", "POST", PATH, 0.0, 1_800_000_000.0, response_body=ANSWER)
    answers = StoredAnswers(Store(sqlite), ignore, lambda: 1_800_000_000.0)
    keeping = ChatRecorder(request, exchange, answers)
    id = (keeping.request.parsed.echo or {})["id"]
    found: list[bool] = []

    async def send(message: Message) -> None:
        found.append(await answers.find(id, AnswerKind.CHAT, "") is not None)

    await deliver(Whole(200, [], ANSWER), exchange, Patient(), send, 0, keeping.keep)
    assert found == [False, True]
