"""The rest of a stream of `/prompt`: the tokens are counted on from where they stopped."""

from __future__ import annotations

import msgspec

from neurogate.channel import Resume
from neurogate.engines.engine import EngineCall, EngineRefusedError
from neurogate.engines.http import CHAT_PATH, chat_body
from neurogate.inference import Finished, Prompt
from neurogate.prompt_api import UNDECODABLE, PromptRequest, PromptToken
from neurogate.worker.prompting import done_of, event, prompt_of
from neurogate.worker.resuming.form import Continued

_decode = msgspec.json.Decoder(PromptRequest).decode


class PromptForm:
    """See the module."""

    mark = b""

    def __init__(self, request_id: str, said: Resume) -> None:
        self._request_id = request_id
        self._count = said.tokens

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def piece(self, text: str) -> bytes:
        """The event of a token."""
        self._count += 1
        return event(PromptToken(request_id=self._request_id, token=text, tokens_generated=self._count))

    def closing(self, finished: Finished) -> bytes:
        """The last event."""
        return event(done_of(self._request_id, finished))


def continued(call: EngineCall, said: Resume, *, model: str) -> Continued:
    """The rest of the answer to a prompt, which the engine knows as a chat.

    `model` is the worker's own. Raises EngineRefusedError (400).
    """
    try:
        request = _decode(call.body)
    except UNDECODABLE as error:
        raise EngineRefusedError(400, str(error)) from error
    prompt: Prompt = prompt_of(request)
    body = chat_body(prompt, prompt.model or model)
    asked = EngineCall(CHAT_PATH, body, call.request_id, call.max_answer_bytes)
    return Continued(asked, PromptForm(call.request_id, said), request.max_tokens)
