"""Headers as OTEL_EXPORTER_OTLP_HEADERS has them: `api-key=key,other=value%20here`."""

from __future__ import annotations

import re
from urllib.parse import unquote

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def parse_headers(text: str) -> dict[str, str] | None:
    """The headers by name; None when that is not what the text is."""
    headers: dict[str, str] = {}
    for entry in text.split(","):
        if not entry.strip():
            continue
        name, mark, value = entry.partition("=")
        name, value = name.strip(), unquote(value.strip())
        if not mark or not _NAME.fullmatch(name) or not value.isprintable():
            return None
        headers[name] = value
    return headers
