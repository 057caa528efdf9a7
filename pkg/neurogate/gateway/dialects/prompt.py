"""NeuroGate's own `/prompt`, and the words of the gateway's other routes."""

from __future__ import annotations

import msgspec

from neurogate.channel import End
from neurogate.errors import GatewayError
from neurogate.gateway.dialects.dialect import EVENT_STREAM, JSON, Answer, Head, bad_body, refused
from neurogate.prompt_api import UNDECODABLE, PromptAnswer, PromptRequest

_encode = msgspec.json.encode


class PromptDialect:
    """See the module."""

    stream_type = EVENT_STREAM
    id_header = b""

    _decode = staticmethod(msgspec.json.Decoder(PromptRequest).decode)
    _decode_answer = staticmethod(msgspec.json.Decoder(PromptAnswer).decode)

    def read(self, body: bytes) -> Head:
        """Validate a body. Raises BadRequestError saying what to change."""
        try:
            request = self._decode(body)
        except UNDECODABLE as error:
            raise bad_body(error) from error
        return Head(request.model or "", request.stream, request.max_tokens)

    def answer(self, end: End, body: bytes, *, worker_id: str, latency_ms: int) -> Answer:
        """The worker's answer with what only the gateway knows."""
        if end.http_status >= 400:
            message = end.message or body.decode("utf-8", "replace")
            return Answer(end.http_status, JSON, self.error(refused(end, message), ""))
        answer = self._decode_answer(body)
        answer.worker_id = worker_id
        answer.latency_ms = latency_ms
        return Answer(200, JSON, _encode(answer))

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """`{"error", "code", "message"}`."""
        return _encode(plain_error(error, request_id))

    def error_event(self, error: GatewayError, request_id: str) -> bytes:
        """The same as an event, marked as not done."""
        return b"\n\ndata: " + _encode({**plain_error(error, request_id), "done": False}) + b"\n\n"


def plain_error(error: GatewayError, request_id: str) -> dict[str, object]:
    """The error body of NeuroGate's own routes."""
    body: dict[str, object] = {"error": error.kind, "code": error.code, "message": error.message}
    if request_id:
        body["request_id"] = request_id
    return body
