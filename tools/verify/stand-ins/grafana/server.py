"""In Grafana's place where its image cannot be had: answers its health check, and tells which files it was given.

It proves that compose mounts what provisioning names, and nothing about Grafana. It answers 503 unless dashboards are
JSON with a uid and a title and provisioning has files; `/api/search` lists the dashboards.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PROVISIONING = Path("/etc/grafana/provisioning")
DASHBOARDS = Path("/var/lib/grafana/dashboards")


def dashboards() -> list[dict[str, str]]:
    """Uid, title and file of each; raises ValueError or KeyError for one that cannot be a dashboard."""
    found = []
    for path in sorted(DASHBOARDS.rglob("*.json")):
        board = json.loads(path.read_text("utf-8"))
        found.append({"uid": board["uid"], "title": board["title"], "uri": str(path)})
    return found


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """Health or the list of dashboards, whatever else is asked."""
        self.answer(whole=True)

    def do_HEAD(self) -> None:
        """What `wget --spider` asks."""
        self.answer(whole=False)

    def answer(self, *, whole: bool) -> None:
        """The same for both, with or without the body."""
        try:
            boards = dashboards()
            files = [str(path) for path in sorted(PROVISIONING.rglob("*.y*ml"))]
        except (OSError, ValueError, KeyError) as error:
            boards, files = [], [repr(error)]
        told: object = boards if self.path.startswith("/api/search") else {"stand-in": True, "provisioning": files}
        body = json.dumps(told).encode()
        self.send_response(200 if boards and files else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if whole:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: health checks are no news."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", 3000), Handler).serve_forever()
