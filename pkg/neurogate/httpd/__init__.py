"""The HTTP listener: an ASGI app on a port that anybody may talk to (ADR 0014)."""

from typing import TYPE_CHECKING, Any

from neurogate.httpd.connection import Connection
from neurogate.httpd.limits import FLUSH_TIMEOUT_S, HttpLimits

if TYPE_CHECKING:
    from neurogate.httpd.server import HttpServer

__all__ = ["FLUSH_TIMEOUT_S", "Connection", "HttpLimits", "HttpServer"]


def __getattr__(name: str) -> Any:
    """The server only when it is asked for: the command line reads settings of this package, and starts quickly."""
    if name == "HttpServer":
        from neurogate.httpd.server import HttpServer

        return HttpServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
