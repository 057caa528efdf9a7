"""What a listener takes from its clients, in bytes, numbers and seconds."""

from __future__ import annotations

from dataclasses import dataclass

FLUSH_TIMEOUT_S = 30.0
"""How long a client may take to read what is left of its answer before its connection is cut."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of every connection of one listener. Times are kept by a sweep: they may be exceeded by two of them."""

    url_bytes: int = 8192
    """Beyond it: 414."""
    header_bytes: int = 8192
    """Name and value of one header. Beyond it, and beyond the next two: 431."""
    head_bytes: int = 64 * 1024
    """Request line and headers. As much is taken between two pieces of a chunked body, and as trailers."""
    headers: int = 128
    """Number of headers."""
    body_bytes: int = 0
    """Body, for endpoints that have no bound of their own: 413. 0 is unlimited."""
    head_timeout_s: float = 10.0
    """From the connection, or from a later request's first byte, to the end of the head: 408."""
    body_timeout_s: float = 60.0
    """From the end of the head to the end of the body, while somebody reads it: 408."""
    idle_timeout_s: float = 75.0
    """Between an answer and the next request."""
    linger_s: float = 5.0
    """How long a client that is being closed may go on sending: a close at once could overtake its answer."""
    flush_timeout_s: float = FLUSH_TIMEOUT_S
    """How long a client may take to read the rest of an answer that has ended."""
    handshake_timeout_s: float = 10.0
    """How long a TLS handshake may take."""
    connections: int = 10_000
    """Connections at once. Beyond it: 503."""

    @property
    def sweep_interval_s(self) -> float:
        """Seconds between two looks at all connections: a second, or less where a time is short."""
        shortest = min(
            self.head_timeout_s, self.body_timeout_s, self.idle_timeout_s, self.linger_s, self.flush_timeout_s
        )
        return max(0.01, min(1.0, shortest / 4))
