"""Addresses of workers, as people write them."""

from __future__ import annotations

from collections.abc import Sequence

from neurogate.errors import ConfigError


def check_addresses(addresses: Sequence[str]) -> None:
    """Raises ConfigError for an address that is not host:port, or that is listed twice."""
    for address in addresses:
        if not is_address(address):
            raise ConfigError(f"WORKER_ADDRESSES: {address!r} is not host:port, for example localhost:50051")
    if len(set(addresses)) != len(addresses):
        raise ConfigError("WORKER_ADDRESSES: an address is listed twice; each worker once is enough")


def is_address(text: str) -> bool:
    """Whether it is host:port."""
    host, colon, port = text.rpartition(":")
    return bool(colon and host and port.isdecimal() and 0 < int(port) < 65536)
