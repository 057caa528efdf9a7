"""An error at any path in the words of whoever calls there: also where no dialect was asked."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from neurogate.errors import GatewayError
from neurogate.gateway.dialects.anthropic import anthropic_error
from neurogate.gateway.dialects.llamacpp import llamacpp_error
from neurogate.gateway.dialects.ollama import ollama_error
from neurogate.gateway.dialects.openai import openai_error
from neurogate.gateway.dialects.prompt import plain_error
from neurogate.operations import OPERATIONS, Family


def refusal(path: str, headers: Mapping[str, str], error: GatewayError, request_id: str = "") -> bytes:
    """The body of an error."""
    said: object
    match _family(path, headers):
        case Family.OPENAI:
            said = {"error": openai_error(error)}
        case Family.ANTHROPIC:
            said = anthropic_error(error.status, error.message, request_id)
        case Family.OLLAMA:
            said = ollama_error(error)
        case Family.LLAMACPP:
            said = llamacpp_error(error.status, error.kind, error.message)
        case _:
            said = plain_error(error, request_id)
    return msgspec.json.encode(said)


def _family(path: str, headers: Mapping[str, str]) -> Family:
    """Whose clients call there; Anthropic's name their version of the API at paths that both families have."""
    operation = OPERATIONS.get(path)
    if operation is not None:
        return operation.family
    if path.startswith("/v1/"):
        return Family.ANTHROPIC if "anthropic-version" in headers else Family.OPENAI
    return Family.OLLAMA if path.startswith("/api/") else Family.NEUROGATE
