"""uvicorn's HTTP protocol, but for the one answer that it gives by itself."""

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from llmproxy.wire.errors import BadRequest


class Protocol(HttpToolsProtocol):
    """What is not HTTP is told so in OpenAI's envelope too."""

    def send_400_response(self, msg: str) -> None:
        body = BadRequest(msg).body()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[400] + head + body)
        self.transport.close()
