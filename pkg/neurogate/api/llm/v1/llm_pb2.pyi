from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class PromptRequest(_message.Message):
    __slots__ = ("request_id", "prompt", "model", "max_tokens", "temperature", "system_prompt")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_PROMPT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    prompt: str
    model: str
    max_tokens: int
    temperature: float
    system_prompt: str
    def __init__(self, request_id: _Optional[str] = ..., prompt: _Optional[str] = ..., model: _Optional[str] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., system_prompt: _Optional[str] = ...) -> None: ...

class PromptResponse(_message.Message):
    __slots__ = ("request_id", "response", "prompt_tokens", "completion_tokens", "total_tokens", "inference_time_ms", "model", "finish_reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    response: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    inference_time_ms: int
    model: str
    finish_reason: str
    def __init__(self, request_id: _Optional[str] = ..., response: _Optional[str] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., total_tokens: _Optional[int] = ..., inference_time_ms: _Optional[int] = ..., model: _Optional[str] = ..., finish_reason: _Optional[str] = ...) -> None: ...

class TokenResponse(_message.Message):
    __slots__ = ("request_id", "token", "done", "tokens_generated", "prompt_tokens", "completion_tokens", "inference_time_ms", "model", "finish_reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_GENERATED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    token: str
    done: bool
    tokens_generated: int
    prompt_tokens: int
    completion_tokens: int
    inference_time_ms: int
    model: str
    finish_reason: str
    def __init__(self, request_id: _Optional[str] = ..., token: _Optional[str] = ..., done: _Optional[bool] = ..., tokens_generated: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., inference_time_ms: _Optional[int] = ..., model: _Optional[str] = ..., finish_reason: _Optional[str] = ...) -> None: ...

class HealthCheckRequest(_message.Message):
    __slots__ = ("timestamp",)
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    timestamp: int
    def __init__(self, timestamp: _Optional[int] = ...) -> None: ...

class HealthCheckResponse(_message.Message):
    __slots__ = ("healthy", "load", "active_requests", "version", "ollama_connected")
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OLLAMA_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    healthy: bool
    load: float
    active_requests: int
    version: str
    ollama_connected: bool
    def __init__(self, healthy: _Optional[bool] = ..., load: _Optional[float] = ..., active_requests: _Optional[int] = ..., version: _Optional[str] = ..., ollama_connected: _Optional[bool] = ...) -> None: ...
