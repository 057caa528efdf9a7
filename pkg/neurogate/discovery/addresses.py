"""Addresses of workers, as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_ADDRESS = re.compile(r"[^\s/@]+:(?P<port>[0-9]{1,5})")


def wrong(addresses: Sequence[str]) -> Iterator[str]:
    """What is wrong with a list of addresses: those that are not host:port, and those that are in it twice."""
    for address in addresses:
        if not is_address(address):
            yield not_an_address(address)
    if len(set(addresses)) != len(addresses):
        yield "an address is listed twice; each worker once is enough"


def is_address(text: str) -> bool:
    """Whether it is host:port. A URL is none: the link's settings say whether it is TLS."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and 0 < int(match["port"]) < 65536


def not_an_address(text: str) -> str:
    """What is wrong with something that is none."""
    return f"{text!r} is not host:port, for example localhost:50051{'; leave the scheme out' if '://' in text else ''}"


def host_port(host: str, port: int) -> str:
    """The address of a host, an IPv6 one in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
