"""A gateway and a worker in miniature, to be run as the processes of a fleet. FAKE says who misbehaves, and how.

FAKE is a comma-separated list of `name=behaviour`, for example `worker-1=die`. It looks like the real thing from the
outside: GET /workers, POST /prompt and a streamed POST /v1/chat/completions on the gateway, a listener on each worker.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
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

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        listed = []
        for index, address in enumerate(self.workers):
            up = self.how != "never-ready" and reachable(address)
            breaker = "closed" if up or self.how == "no-breaker" else "open"
            worker = {"id": f"w{index}", "address": address, "healthy": up, "ready": up, "detail": self.how}
            listed.append({**worker, "circuit_breaker_state": breaker})
        self.answer(json.dumps({"workers": listed, "count": len(listed)}).encode())

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
        self.answer("".join(lines + ([] if self.how == "cut-stream" else ["data: [DONE]\n\n"])).encode())

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


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
        server = ThreadingHTTPServer((ENVIRON["NEUROGATE_HOST"], int(ENVIRON["HTTP_PORT"])), Gateway)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    else:
        listener = socket.create_server(("127.0.0.1", int(ENVIRON["GRPC_PORT"])), backlog=64)
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
