"""Addresses of workers, as people write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def wrong(addresses: Sequence[str]) -> Iterator[str]:
    """What is wrong with a list of addresses: those that are not host:port, and those that are in it twice."""
    for address in addresses:
        if not is_address(address):
            yield f"{address!r} is not host:port, for example localhost:50051"
    if len(set(addresses)) != len(addresses):
        yield "an address is listed twice; each worker once is enough"


def is_address(text: str) -> bool:
    """Whether it is host:port."""
    host, colon, port = text.rpartition(":")
    return bool(colon and host and port.isdecimal() and 0 < int(port) < 65536)
