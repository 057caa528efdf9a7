"""A receiver of OTLP over HTTP, as small as can be: what a collector, Jaeger or Tempo gets, for tests to look at."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Received(NamedTuple):
    """One span as it arrived."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, object]
    failed: bool
    message: str
    events: tuple[str, ...]


class OtlpReceiver:
    """Listens on a free port of this machine. Use as a context manager: nothing is left listening."""

    def __init__(self, *, status: int = 200) -> None:
        """`status` is what it answers."""
        self.status = status
        self.spans: list[Received] = []
        self.requests: list[dict[str, str]] = []
        """The headers of each."""
        self._news = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                receiver._take(self.path, dict(self.headers), body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(receiver.status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> OtlpReceiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for(self, *names: str, trace_id: str = "", timeout: float = 20) -> list[Received]:
        """The spans of a trace (of any, without an id) once at least these are there, however often each is named."""

        def found() -> list[Received]:
            return [span for span in self.spans if trace_id in {"", span.trace_id}]

        def there() -> bool:
            have = [span.name for span in found()]
            return all(have.count(name) >= names.count(name) for name in names)

        with self._news:
            assert self._news.wait_for(there, timeout), f"of {names} there came {[span.name for span in found()]}"
            return found()

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        assert path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        with self._news:
            self.requests.append({name.lower(): value for name, value in headers.items()})
            if self.status == 200:
                self.spans.extend(_spans(request))
            self._news.notify_all()


def _spans(request: ExportTraceServiceRequest) -> list[Received]:
    return [
        Received(
            str(_attributes(of_service.resource.attributes)["service.name"]),
            span.name,
            span.kind,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            _attributes(span.attributes),
            span.status.code == 2,
            span.status.message,
            tuple(event.name for event in span.events),
        )
        for of_service in request.resource_spans
        for of_scope in of_service.scope_spans
        for span in of_scope.spans
    ]


def _attributes(pairs: object) -> dict[str, object]:
    def value(found: object) -> object:
        kind = found.WhichOneof("value")
        told = getattr(found, kind)
        return [value(item) for item in told.values] if kind == "array_value" else told

    return {pair.key: value(pair.value) for pair in pairs}
