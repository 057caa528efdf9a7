"""The transcript of NeuroGate's own `/prompt`, which gRPC's streams are read from as well."""

from __future__ import annotations

import msgspec

from neurogate.gateway.resuming.framing import ServerSentEvents
from neurogate.gateway.resuming.transcript import StreamTranscript
from neurogate.prompt_api import PromptDone, PromptToken


class _Done(msgspec.Struct):
    done: bool


_decode_done = msgspec.json.Decoder(_Done).decode
_decode_token = msgspec.json.Decoder(PromptToken).decode
_decode_last = msgspec.json.Decoder(PromptDone).decode


class PromptTranscript(StreamTranscript):
    """See the module. The last event tells everything at once, so there is an end mark or none of it."""

    def __init__(self) -> None:
        super().__init__(ServerSentEvents())

    def _read(self, data: bytes) -> None:
        if _decode_done(data).done:
            _decode_last(data)
            self._ended = True
            return
        event = _decode_token(data)
        self._introduce(completion_id=event.request_id)
        self._say(event.token)
