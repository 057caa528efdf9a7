"""Asks a process on this machine whether it is well, for container runtimes that ask every few seconds.

`neurogate health` tells people; this tells nobody anything but its exit code, and imports next to nothing: its start
would otherwise cost more than what it watches.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

_TIMEOUT_S = 4.0
_USAGE = "usage: neurogate-probe http://HOST:PORT/PATH\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when the URL answers with 200, 1 when it does not, 2 for anything but one plain http URL."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    url = given[0] if len(given) == 1 else ""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    host, _, port = authority.rpartition(":")
    if scheme != "http" or not host or not port.isdecimal():
        sys.stderr.write(_USAGE)
        return 2
    try:
        line = _status_line(host.strip("[]"), int(port), f"/{path}")
    except (OSError, OverflowError) as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1
    if line.split(" ")[1:2] == ["200"]:
        return 0
    sys.stderr.write(f"{url}: {line}\n")
    return 1


def _status_line(host: str, port: int, path: str) -> str:
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
        connection.sendall(request.encode())
        with connection.makefile("rb") as answer:
            return answer.readline(1024).decode("latin-1").strip() or "no answer"


if __name__ == "__main__":
    sys.exit(main())
