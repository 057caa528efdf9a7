from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EndCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_CODE_UNSPECIFIED: _ClassVar[EndCode]
    END_CODE_UNAVAILABLE: _ClassVar[EndCode]
    END_CODE_BROKEN: _ClassVar[EndCode]
    END_CODE_DEADLINE: _ClassVar[EndCode]
    END_CODE_CANCELLED: _ClassVar[EndCode]
    END_CODE_BUSY: _ClassVar[EndCode]
    END_CODE_UNSUPPORTED: _ClassVar[EndCode]
    END_CODE_INTERNAL: _ClassVar[EndCode]
END_CODE_UNSPECIFIED: EndCode
END_CODE_UNAVAILABLE: EndCode
END_CODE_BROKEN: EndCode
END_CODE_DEADLINE: EndCode
END_CODE_CANCELLED: EndCode
END_CODE_BUSY: EndCode
END_CODE_UNSUPPORTED: EndCode
END_CODE_INTERNAL: EndCode

class GatewayFrame(_message.Message):
    __slots__ = ("submits", "cancels", "ping", "parts", "hello")
    SUBMITS_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    submits: _containers.RepeatedCompositeFieldContainer[Submit]
    cancels: _containers.RepeatedScalarFieldContainer[int]
    ping: int
    parts: _containers.RepeatedCompositeFieldContainer[BodyPart]
    hello: Hello
    def __init__(self, submits: _Optional[_Iterable[_Union[Submit, _Mapping]]] = ..., cancels: _Optional[_Iterable[int]] = ..., ping: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[BodyPart, _Mapping]]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("gateway_id", "version")
    GATEWAY_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    gateway_id: str
    version: str
    def __init__(self, gateway_id: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Submit(_message.Message):
    __slots__ = ("id", "deadline_ms", "traceparent", "path", "body", "more", "request_id", "resume", "tracestate")
    ID_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    id: int
    deadline_ms: int
    traceparent: str
    path: str
    body: bytes
    more: bool
    request_id: str
    resume: Resume
    tracestate: str
    def __init__(self, id: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., traceparent: _Optional[str] = ..., path: _Optional[str] = ..., body: _Optional[bytes] = ..., more: _Optional[bool] = ..., request_id: _Optional[str] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., tracestate: _Optional[str] = ...) -> None: ...

class BodyPart(_message.Message):
    __slots__ = ("id", "data", "last")
    ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    id: int
    data: bytes
    last: bool
    def __init__(self, id: _Optional[int] = ..., data: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("text", "completion_id", "created", "tokens", "model", "finish_reason", "usage_sent", "lengths", "system_fingerprint")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_SENT_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    text: str
    completion_id: str
    created: int
    tokens: int
    model: str
    finish_reason: str
    usage_sent: bool
    lengths: bytes
    system_fingerprint: str
    def __init__(self, text: _Optional[str] = ..., completion_id: _Optional[str] = ..., created: _Optional[int] = ..., tokens: _Optional[int] = ..., model: _Optional[str] = ..., finish_reason: _Optional[str] = ..., usage_sent: _Optional[bool] = ..., lengths: _Optional[bytes] = ..., system_fingerprint: _Optional[str] = ...) -> None: ...

class WorkerFrame(_message.Message):
    __slots__ = ("ids", "chunks", "ends", "stats", "draining", "pong")
    IDS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    chunks: _containers.RepeatedScalarFieldContainer[bytes]
    ends: _containers.RepeatedCompositeFieldContainer[End]
    stats: WorkerStatus
    draining: bool
    pong: int
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., chunks: _Optional[_Iterable[bytes]] = ..., ends: _Optional[_Iterable[_Union[End, _Mapping]]] = ..., stats: _Optional[_Union[WorkerStatus, _Mapping]] = ..., draining: _Optional[bool] = ..., pong: _Optional[int] = ...) -> None: ...

class End(_message.Message):
    __slots__ = ("id", "code", "http_status", "content_type", "body", "usage", "finish_reason", "retry_after_ms", "message")
    ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    HTTP_STATUS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    id: int
    code: EndCode
    http_status: int
    content_type: str
    body: bytes
    usage: Usage
    finish_reason: str
    retry_after_ms: int
    message: str
    def __init__(self, id: _Optional[int] = ..., code: _Optional[_Union[EndCode, str]] = ..., http_status: _Optional[int] = ..., content_type: _Optional[str] = ..., body: _Optional[bytes] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., finish_reason: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "completion_tokens", "cached_tokens")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker_id", "version", "ready", "draining", "detail", "engine", "models", "slots_total", "slots_busy", "running", "queued", "tokens_outstanding", "kv_used_ratio", "decode_tokens_per_s", "prompt_tokens_per_s", "requests_total", "prompt_tokens_total", "completion_tokens_total", "uptime_s", "seq", "apis", "resumes", "last_words", "loading")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SLOTS_BUSY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_OUTSTANDING_FIELD_NUMBER: _ClassVar[int]
    KV_USED_RATIO_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    APIS_FIELD_NUMBER: _ClassVar[int]
    RESUMES_FIELD_NUMBER: _ClassVar[int]
    LAST_WORDS_FIELD_NUMBER: _ClassVar[int]
    LOADING_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    version: str
    ready: bool
    draining: bool
    detail: str
    engine: EngineInfo
    models: _containers.RepeatedCompositeFieldContainer[Model]
    slots_total: int
    slots_busy: int
    running: int
    queued: int
    tokens_outstanding: int
    kv_used_ratio: float
    decode_tokens_per_s: float
    prompt_tokens_per_s: float
    requests_total: int
    prompt_tokens_total: int
    completion_tokens_total: int
    uptime_s: float
    seq: int
    apis: _containers.RepeatedScalarFieldContainer[str]
    resumes: _containers.RepeatedScalarFieldContainer[str]
    last_words: str
    loading: bool
    def __init__(self, worker_id: _Optional[str] = ..., version: _Optional[str] = ..., ready: _Optional[bool] = ..., draining: _Optional[bool] = ..., detail: _Optional[str] = ..., engine: _Optional[_Union[EngineInfo, _Mapping]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., slots_total: _Optional[int] = ..., slots_busy: _Optional[int] = ..., running: _Optional[int] = ..., queued: _Optional[int] = ..., tokens_outstanding: _Optional[int] = ..., kv_used_ratio: _Optional[float] = ..., decode_tokens_per_s: _Optional[float] = ..., prompt_tokens_per_s: _Optional[float] = ..., requests_total: _Optional[int] = ..., prompt_tokens_total: _Optional[int] = ..., completion_tokens_total: _Optional[int] = ..., uptime_s: _Optional[float] = ..., seq: _Optional[int] = ..., apis: _Optional[_Iterable[str]] = ..., resumes: _Optional[_Iterable[str]] = ..., last_words: _Optional[str] = ..., loading: _Optional[bool] = ...) -> None: ...

class EngineInfo(_message.Message):
    __slots__ = ("kind", "version", "restarts")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    version: str
    restarts: int
    def __init__(self, kind: _Optional[str] = ..., version: _Optional[str] = ..., restarts: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "loaded", "context_length", "family", "parameters", "quantization", "size_bytes", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    loaded: bool
    context_length: int
    family: str
    parameters: int
    quantization: str
    size_bytes: int
    digest: str
    def __init__(self, name: _Optional[str] = ..., loaded: _Optional[bool] = ..., context_length: _Optional[int] = ..., family: _Optional[str] = ..., parameters: _Optional[int] = ..., quantization: _Optional[str] = ..., size_bytes: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class GenerateRequest(_message.Message):
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

class GenerateEvent(_message.Message):
    __slots__ = ("token", "finished")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    token: Token
    finished: Finished
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("text", "tokens_generated")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_GENERATED_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens_generated: int
    def __init__(self, text: _Optional[str] = ..., tokens_generated: _Optional[int] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("usage", "finish_reason", "model", "inference_time_ms")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    usage: Usage
    finish_reason: str
    model: str
    inference_time_ms: int
    def __init__(self, usage: _Optional[_Union[Usage, _Mapping]] = ..., finish_reason: _Optional[str] = ..., model: _Optional[str] = ..., inference_time_ms: _Optional[int] = ...) -> None: ...
