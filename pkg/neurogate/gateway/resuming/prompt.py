"""The transcript of NeuroGate's own `/prompt`, which gRPC's streams are read from as well."""

from __future__ import annotations

import msgspec

from neurogate.gateway.resuming.framing import ServerSentEvents
from neurogate.gateway.resuming.transcript import StreamTranscript
from neurogate.prompt_api import PromptDone, PromptToken


class _Done(msgspec.Struct):
    done: bool


class _Word(PromptToken, kw_only=True, gc=False):
    done: bool


_decode_done = msgspec.json.Decoder(_Done).decode
_decode_token = msgspec.json.Decoder(PromptToken).decode
_decode_last = msgspec.json.Decoder(PromptDone).decode
_decode_word = msgspec.json.Decoder(_Word).decode


class PromptTranscript(StreamTranscript):
    """See the module. The last event tells everything at once, so there is an end mark or none of it."""

    def __init__(self) -> None:
        super().__init__(ServerSentEvents())

    @staticmethod
    def _word(data: bytes) -> str:
        event = _decode_word(data)
        if event.done:
            raise msgspec.ValidationError("it is the last one")
        return event.token

    def _read(self, data: bytes) -> None:
        if _decode_done(data).done:
            _decode_last(data)
            self._ended = True
            return
        event = _decode_token(data)
        self._introduce(completion_id=event.request_id)
        self._say(event.token)
