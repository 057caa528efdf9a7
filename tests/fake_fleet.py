"""A gateway and a worker in miniature, to be run as the processes of a fleet. FAKE says who misbehaves, and how.

FAKE is a comma-separated list of `name=behaviour`, for example `worker-1=die`. It looks like the real thing from the
outside: POST /prompt and a streamed POST /v1/chat/completions on the gateway, a listener on each worker, and what is
asked of each ops port. Clients need a key, and nothing else is answered without one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SCRIPT = Path(__file__)
ENVIRON = dict(os.environ)
FAKE = dict(item.split("=") for item in ENVIRON.get("FAKE", "").split(",") if item)


class Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    how = FAKE.get("gateway", "")
    workers = ENVIRON.get("WORKER_ADDRESSES", "").split(",")
    turn = 0
    streams = 0

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.answer(b'{"error": "no key"}', 401)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != "Bearer neurogate-secret-key-1":
            self.answer(b'{"error": "no key"}', 401)
        elif self.path == "/prompt":
            self.prompt(body["query"])
        else:
            self.stream(body["messages"][0]["content"])

    def prompt(self, query: str) -> None:
        if self.how == "vanish" and query.startswith("What is gravity"):
            os._exit(3)
        text = {"error-body": None, "empty": " "}.get(self.how, f"a long and honest answer to the question {query}")
        Gateway.turn += 1
        self.answer(json.dumps({"error": "broken"} if text is None else {"response": text, "worker_id": "w1"}).encode())

    def stream(self, question: str) -> None:
        pieces = question.split() if self.how != "one-piece" else [question]
        events = [{"choices": [{"delta": {"content": f"{piece} "}}]} for piece in pieces]
        lines = [f"data: {json.dumps(event)}\n\n" for event in [*events, {"choices": []}]]
        Gateway.streams += 1
        if Gateway.streams > 1 and self.how != "not-continued":
            lines.insert(3, ": continued by another worker, attempt 2\n\n")
        self.answer("".join(lines + ([] if self.how == "cut-stream" else ["data: [DONE]\n\n"])).encode())

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        if self.how != "nameless":
            self.send_header("X-NeuroGate-Worker", "worker-0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class GatewayOps(Gateway):
    def do_GET(self) -> None:
        linked = [self.how != "never-ready" and reachable(address) for address in self.workers]
        if self.how == "garbage":
            self.answer(b"garbage" if self.path != "/metrics" else b"# nothing yet\n")
        elif self.path == "/metrics":
            self.answer("".join(f"{line}\n" for line in self.metrics(linked)).encode())
        elif self.path == "/health":
            self.answer(json.dumps({"workers": {"total": len(linked), "available": sum(linked)}}).encode())
        else:
            self.answer(b"{}", 503 if self.how == "starting" else 200)

    def metrics(self, linked: list[bool]) -> Iterator[str]:
        for index, up in enumerate(linked):
            breaker = 0 if up or self.how == "no-breaker" else 1
            yield f'neurogate_gateway_worker_linked{{worker="worker-{index}"}} {int(up)}'
            yield f'neurogate_gateway_circuit_breaker_state{{worker="worker-{index}"}} {breaker}'


class WorkerOps(Gateway):
    how = FAKE.get(ENVIRON.get("NEUROGATE_WORKER_ID", ""), "")

    def do_GET(self) -> None:
        status = {"loading": "unhealthy", "draining": "draining"}.get(self.how, "healthy")
        self.answer(
            json.dumps({"status": status, "detail": self.how}).encode() if self.how != "garbage" else b"garbage"
        )


def serve(handler: type[Gateway], host: str, port: str) -> None:
    server = ThreadingHTTPServer((host, int(port)), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def reachable(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def accept(listener: socket.socket) -> None:
    while True:
        listener.accept()[0].close()


def stop(*_: object) -> None:
    raise SystemExit(0)


def main(role: str) -> None:
    how = FAKE.get(ENVIRON.get("NEUROGATE_WORKER_ID", "gateway"), "")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "ignore-term" else stop)
    print(f"{role} says hello", flush=True)
    if how == "die":
        sys.exit("it cannot work like this")
    if how == "orphan":
        waiting = [sys.executable, "-c", "import signal; signal.pause()"]
        subprocess.Popen(waiting, start_new_session=True)
    if how == "deaf":
        signal.pause()
    if role == "gateway":
        serve(GatewayOps, ENVIRON["NEUROGATE_HOST"], ENVIRON["METRICS_PORT"])
        serve(Gateway, ENVIRON["NEUROGATE_HOST"], ENVIRON["HTTP_PORT"])
    else:
        serve(WorkerOps, "127.0.0.1", ENVIRON["METRICS_PORT"])
        listener = socket.create_server(("127.0.0.1", int(ENVIRON["GRPC_PORT"])), backlog=64)
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
