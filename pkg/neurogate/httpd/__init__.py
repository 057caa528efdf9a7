"""The HTTP listener: an ASGI app on a port that anybody may talk to (ADR 0014)."""

from neurogate.httpd.connection import Connection
from neurogate.httpd.limits import FLUSH_TIMEOUT_S, HttpLimits
from neurogate.httpd.server import HttpServer

__all__ = ["FLUSH_TIMEOUT_S", "Connection", "HttpLimits", "HttpServer"]
