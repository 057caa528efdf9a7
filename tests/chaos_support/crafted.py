"""Right answers of each API, written by hand, to be made wrong: what a checker is checked with."""

from __future__ import annotations

import json

from chaos_support.checker import Expected

PIECES = ["[sim]", " Some", " green", " “cloud”", " hears", " this"]
EXPECTED = Expected("".join(PIECES), "length", prompt_tokens=29, answer_tokens=6)


def stream_events(name: str, pieces: list[str] = PIECES) -> list[bytes]:
    """The events of the streamed answer of an API of that name."""
    if name.startswith("chat"):
        return _openai(pieces, chat=True, usage="without" not in name)
    if name.startswith("completions"):
        return _openai(pieces, chat=False, usage="without" not in name)
    if name.startswith("prompt"):
        return _prompt(pieces)
    return _ollama(pieces, chat="chat" in name)


def whole_body(name: str) -> bytes:
    """The body of the unstreamed answer."""
    text = EXPECTED.text
    usage = {"prompt_tokens": 29, "completion_tokens": 6, "total_tokens": 35}
    if name == "prompt":
        return json.dumps(
            {"request_id": "r", "response": text, "tokens": 35, "finish_reason": "length", **_tokens()}
        ).encode()
    if name.startswith("ollama"):
        said = {"message": {"role": "assistant", "content": text}} if "chat" in name else {"response": text}
        return json.dumps({"model": "m", "created_at": "t", **said, **_ollama_end()}).encode()
    choice = {"message": {"role": "assistant", "content": text}} if name == "chat" else {"text": text}
    return json.dumps({"choices": [{"index": 0, "finish_reason": "length", **choice}], "usage": usage}).encode()


def refusal(name: str) -> bytes:
    if name.startswith("prompt"):
        return b'{"error":"unavailable","code":"no_worker_available","message":"nobody"}'
    if name.startswith("ollama"):
        return b'{"error":"nobody"}'
    return b'{"error":{"message":"nobody","type":"server_error","param":null,"code":"no_worker_available"}}'


def error_event(name: str) -> bytes:
    return refusal(name) + b"\n" if name.startswith("ollama") else b"data: " + refusal(name) + b"\n\n"


def _tokens() -> dict[str, int]:
    return {"prompt_tokens": 29, "completion_tokens": 6}


def _ollama_end() -> dict[str, object]:
    return {"done": True, "done_reason": "length", "prompt_eval_count": 29, "eval_count": 6}


def _sse(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _openai(pieces: list[str], *, chat: bool, usage: bool) -> list[bytes]:
    kind = "chat.completion.chunk" if chat else "text_completion"
    same = {"created": 1, "id": "one", "model": "m", "system_fingerprint": "f", "object": kind}

    def chunk(said: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"delta": said} if chat else {"text": said.get("content", "")}
        return _sse({"choices": [{"index": 0, **choice, "finish_reason": finish}], **same})

    told = {"prompt_tokens": 29, "completion_tokens": 6, "total_tokens": 35}
    return [
        *([chunk({"role": "assistant", "content": ""})] if chat else []),
        *(chunk({"content": piece}) for piece in pieces),
        chunk({}, "length"),
        *([_sse({"choices": [], **same, "usage": told})] if usage else []),
        b"data: [DONE]\n\n",
    ]


def _prompt(pieces: list[str]) -> list[bytes]:
    return [
        *(
            _sse({"request_id": "r", "token": piece, "tokens_generated": index + 1, "done": False})
            for index, piece in enumerate(pieces)
        ),
        _sse({"request_id": "r", "finish_reason": "length", "tokens": 35, **_tokens(), "done": True}),
    ]


def _ollama(pieces: list[str], *, chat: bool) -> list[bytes]:
    def line(text: str, **more: object) -> bytes:
        said = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
        return json.dumps({"model": "m", "created_at": "t", **said, "done": False, **more}).encode() + b"\n"

    return [*(line(piece) for piece in pieces), line("", **_ollama_end())]


def token_messages(pieces: list[str] = PIECES, *, request: bytes = b"r") -> list[bytes]:
    """The messages of gRPC's StreamGenerateText."""
    head = b"\x0a" + bytes([len(request)]) + request
    said = [
        head + b"\x12" + bytes([len(piece.encode())]) + piece.encode() + b"\x20" + bytes([index + 1])
        for index, piece in enumerate(pieces)
    ]
    return [*said, head + b"\x18\x01\x20\x06\x28\x1d\x30\x06\x4a\x06length"]
