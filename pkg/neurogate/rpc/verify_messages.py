"""The requests of a gRPC verification as bytes, and answers without what a server stamps into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from google.protobuf.message import DecodeError

from neurogate.api.llm.v1 import llm_pb2
from neurogate.api.v1 import worker_pb2

GENERATE_TEXT = "/llm.v1.LLMService/GenerateText"
STREAM_TEXT = "/llm.v1.LLMService/StreamGenerateText"
HEALTH = "/llm.v1.LLMService/HealthCheck"
STATUS = "/neurogate.v1.Worker/GetStatus"

NORMALISED = (
    "inference_time_ms: time",
    f"the answers of {HEALTH} and {STATUS}: state; that there is one is compared",
)


def prompt(text: str, *, request_id: str, max_tokens: int, model: str) -> bytes:
    """A request to generate, for either of the methods that do."""
    asked = llm_pb2.PromptRequest(request_id=request_id, prompt=text, model=model)
    asked.max_tokens, asked.temperature = max_tokens, 0.0
    return asked.SerializeToString()


def padded(size: int) -> bytes:
    """A request of `size` bytes that any method takes: one unknown field, which protobuf passes over."""
    length = max(size - 6, 0)
    return b"\xfa\x7f" + _varint(length) + bytes(length)


def unstamped(method: str, message: bytes) -> bytes:
    """A message of an answer, to be compared; one that cannot be read stays as it is."""
    clear = _STAMPS.get(method)
    try:
        return message if clear is None else clear(message)
    except DecodeError:
        return message


def text_of(method: str, messages: tuple[bytes, ...]) -> str:
    """The text that the messages of an answer carry together."""
    if method == STREAM_TEXT:
        return "".join(llm_pb2.TokenResponse.FromString(message).token for message in messages)
    return "".join(llm_pb2.PromptResponse.FromString(message).response for message in messages)


def at_work(status: bytes) -> int:
    """Requests that a worker holds, by its status."""
    said = worker_pb2.WorkerStatus.FromString(status)
    return said.running + said.queued


def _prompt_response(message: bytes) -> bytes:
    read = llm_pb2.PromptResponse.FromString(message)
    read.ClearField("inference_time_ms")
    return read.SerializeToString(deterministic=True)


def _token_response(message: bytes) -> bytes:
    read = llm_pb2.TokenResponse.FromString(message)
    read.ClearField("inference_time_ms")
    return read.SerializeToString(deterministic=True)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


_STAMPS: Mapping[str, Callable[[bytes], bytes]] = {
    GENERATE_TEXT: _prompt_response,
    STREAM_TEXT: _token_response,
    HEALTH: lambda _: b"",
    STATUS: lambda _: b"",
}
