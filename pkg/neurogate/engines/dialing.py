"""One connection to whichever of several addresses answers first, and which of them did not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial

from neurogate.engines.connection import Connection
from neurogate.race import first_of


async def dial(
    addresses: Sequence[str],
    connect: Callable[[str], Coroutine[None, None, Connection]],
    on_dead: Callable[[str], None],
) -> Connection:
    """The first connection that comes up. `on_dead` hears of each address that failed or was overtaken, maybe twice.

    Raises the OSError of the last address that failed when none answers.
    """
    if not addresses:
        raise OSError("its name has no address")
    begun: list[str] = []

    async def way(address: str) -> tuple[str, Connection]:
        begun.append(address)
        try:
            return address, await connect(address)
        except OSError:
            on_dead(address)
            raise

    if len(addresses) == 1:
        return (await way(addresses[0]))[1]
    address, connection = await first_of([partial(way, one) for one in addresses], discard=_drop)
    for overtaken in begun[: begun.index(address)]:
        on_dead(overtaken)
    return connection


def _drop(late: tuple[str, Connection]) -> None:
    late[1].close()
