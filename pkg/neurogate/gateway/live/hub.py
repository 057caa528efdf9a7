"""Who looks, and what they are shown: one picture a second for all of them, made only while there is somebody.

A viewer is given the latest picture when it asks for the next one. What it did not fetch in time is lost to it: it
costs one reference, however slowly it reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from neurogate.errors import GatewayError
from neurogate.gateway.live.camera import INTERVAL_S


class TooManyViewersError(GatewayError):
    """As many look as may."""

    status = 503
    code = "too_many_viewers"
    kind = "unavailable_error"
    retry_after_default_s = 5.0


class Viewer:
    """Somebody who looks."""

    def __init__(self) -> None:
        self.lost = 0
        """Pictures that it did not fetch."""
        self._picture: bytes | None = None
        self._closed = False
        self._news = asyncio.Event()

    async def next(self) -> bytes | None:
        """The latest picture that it has not had; None when there will be none any more. For one caller at a time."""
        await self._news.wait()
        if self._closed:
            return None
        self._news.clear()
        picture, self._picture = self._picture, None
        return picture

    def show(self, picture: bytes) -> None:
        """There is a newer picture."""
        self.lost += self._picture is not None
        self._picture = picture
        self._news.set()

    def close(self) -> None:
        """It is gone, or will be shown no more. Idempotent."""
        self._closed = True
        self._news.set()


class Hub:
    """The viewers of one gateway."""

    def __init__(self, take: Callable[[], bytes], *, viewers_max: int) -> None:
        """`take` makes a picture, ready to be sent."""
        self._take = take
        self._viewers_max = viewers_max
        self._viewers: set[Viewer] = set()
        self._latest: bytes | None = None
        self._wanted = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def viewers(self) -> int:
        """How many look."""
        return len(self._viewers)

    def configure(self, *, viewers_max: int) -> None:
        """Let another number look at once; those who do may go on."""
        self._viewers_max = viewers_max

    @contextmanager
    def viewer(self) -> Iterator[Viewer]:
        """Look, while the context lasts. Raises TooManyViewersError."""
        if len(self._viewers) >= self._viewers_max:
            raise TooManyViewersError(
                f"{len(self._viewers)} look at the live page already (NEUROGATE_LIVE_VIEWERS_MAX); close one of them"
            )
        viewer = Viewer()
        if self._stopped.is_set():
            viewer.close()
        elif self._viewers and self._latest is not None:
            viewer.show(self._latest)
        self._viewers.add(viewer)
        self._wanted.set()
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def send_away(self) -> None:
        """End the streams of those who look now: whoever still may comes back."""
        for viewer in self._viewers:
            viewer.close()

    async def run(self) -> None:
        """Show pictures, until `stop`."""
        try:
            while await self._somebody_looks():
                self._latest = picture = self._take()
                for viewer in self._viewers:
                    viewer.show(picture)
                with suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL_S):
                        await self._stopped.wait()
        finally:
            self.stop()

    def stop(self) -> None:
        """Tell every viewer that there will be no more pictures, those who come as well. Idempotent."""
        self._stopped.set()
        self._wanted.set()
        self.send_away()

    async def _somebody_looks(self) -> bool:
        """Wait until somebody does; False when it is over."""
        while not (self._viewers or self._stopped.is_set()):
            self._wanted.clear()
            self._latest = None
            await self._wanted.wait()
        return not self._stopped.is_set()
