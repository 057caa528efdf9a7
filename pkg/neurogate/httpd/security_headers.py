"""Headers that every answer carries, so that a browser makes nothing of it that it is not."""

from __future__ import annotations

_ALWAYS = (b"x-content-type-options: nosniff\r\n", b"x-frame-options: DENY\r\n", b"referrer-policy: no-referrer\r\n")
_HSTS = b"strict-transport-security: max-age=31536000\r\n"

PAGE_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of a page that needs nothing from elsewhere; a page with inline parts adds their hashes."""


def security_headers(*, secure: bool) -> bytes:
    """The lines of an answer's head, with HSTS where the connection is `secure`."""
    return b"".join(_ALWAYS) + (_HSTS if secure else b"")
