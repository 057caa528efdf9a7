"""`neurogate top`: the live page of a running gateway in a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.live import Live

from neurogate.cli.top_view import view
from neurogate.config import environment
from neurogate.errors import NeuroGateError
from neurogate.gateway.live.picture import Picture
from neurogate.telemetry.access_log import clean
from neurogate.tls.trust import advice, trusting

_TIMEOUT_S = 5.0
"""Pictures come once a second: one that does not come by then does not come."""

_RETRY_S = 1.0
_PREFIX = "data: "


class Source:
    """Where pictures come from: the ops port of one gateway."""

    def __init__(self, url: str, key: str = "", tls_ca: str = "") -> None:
        """`key` falls back to the first of NEUROGATE_ADMIN_KEY; `tls_ca` is a file of CAs, empty for the system's.

        Raises NeuroGateError for CAs that cannot be read.
        """
        named = environment("NEUROGATE_ADMIN_KEY").get("NEUROGATE_ADMIN_KEY", "").split(",")[0].strip()
        self.url = url.rstrip("/")
        key = key or ("" if "sha256$" in named else named)
        self._client: dict[str, Any] = {
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": _TIMEOUT_S,
            "verify": trusting(tls_ca),
            "trust_env": False,
        }

    async def picture(self) -> bytes:
        """One picture, as JSON. Raises NeuroGateError saying what to change."""
        with self._explained():
            async with httpx.AsyncClient(**self._client) as client:
                answer = await client.get(f"{self.url}/dashboard/picture")
            self._look_at(answer)
            return answer.content

    async def pictures(self) -> AsyncIterator[bytes]:
        """One a second, as JSON, until the gateway ends them. Raises NeuroGateError saying what to change."""
        with self._explained():
            async with (
                httpx.AsyncClient(**self._client) as client,
                client.stream("GET", f"{self.url}/dashboard/events") as answer,
            ):
                if answer.status_code != 200:
                    await answer.aread()
                self._look_at(answer)
                async for line in answer.aiter_lines():
                    if line.startswith(_PREFIX):
                        yield line.removeprefix(_PREFIX).encode()

    def _look_at(self, answer: httpx.Response) -> None:
        if answer.status_code == 200:
            return
        try:
            said = answer.json()
        except ValueError:
            said = None
        message = said.get("message") if isinstance(said, dict) else None
        if answer.status_code == 401:
            raise NeuroGateError(f"{self.url} asks for its admin key: give it with --admin-key, or NEUROGATE_ADMIN_KEY")
        if answer.status_code == 404:
            raise NeuroGateError(
                f"{self.url} is not the ops port of a gateway: give that with --url (METRICS_PORT, 9091 unless set)"
            )
        raise NeuroGateError(clean(str(message or f"{self.url} answered with {answer.status_code}")))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = advice(error) or "is it running? give the address of its ops port with --url (METRICS_PORT)"
            raise NeuroGateError(f"{self.url} does not answer ({str(error) or type(error).__name__}): {why}") from error


def main(source: Source, *, once: bool, json: bool) -> int:
    """Draw pictures until `q` or Ctrl-C; one and no more with `once`, as JSON with `json`, or without a terminal.

    Returns the exit code. Raises NeuroGateError saying what to change.
    """
    console = Console()
    if json:
        print(asyncio.run(source.picture()).decode())
    elif once or not console.is_terminal:
        picture = read(asyncio.run(source.picture()))
        console.print(view(picture, width=console.size.width, height=10_000))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_live(source, console))
    return 0


def read(said: bytes) -> Picture:
    """The picture in what a gateway said. Raises NeuroGateError when it is none that is understood here."""
    try:
        return msgspec.json.decode(said, type=Picture)
    except msgspec.DecodeError as error:
        raise NeuroGateError(
            f"the gateway's pictures are not understood ({error}): is it of another version?"
        ) from error


class Screen:
    """What is shown: the latest picture, or that there is none any more."""

    def __init__(self, console: Console, draw: Callable[[Any], None]) -> None:
        self._console = console
        self._draw = draw
        self._picture: Picture | None = None
        self._stale = ""

    def show(self, picture: Picture) -> None:
        """Draw a newer picture."""
        self._picture, self._stale = picture, ""
        self.redraw()

    def stale(self, why: str) -> None:
        """Say that there is no newer one."""
        self._stale = f"stale: {why}; trying again"
        self.redraw()

    def redraw(self) -> None:
        """Draw what there is, within what room there is now."""
        if self._picture is not None:
            width, height = self._console.size
            self._draw(view(self._picture, width=width, height=height, stale=self._stale))


async def follow(source: Source, screen: Screen, *, retry_s: float = _RETRY_S) -> None:
    """Show pictures for ever. Raises NeuroGateError when not even the first one comes; later that is only told."""
    seen = False
    while True:
        try:
            async for said in source.pictures():
                screen.show(read(said))
                seen = True
            screen.stale("the gateway ended the connection")
        except NeuroGateError as error:
            if not seen:
                raise
            screen.stale(str(error))
        await asyncio.sleep(retry_s)


async def _live(source: Source, console: Console) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    with _keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        screen = Screen(console, lambda drawing: live.update(drawing, refresh=True))

        def pressed() -> None:
            said = os.read(keyboard, 64) if keyboard is not None else b""
            if not said or {b"q", b"Q", b"\x03"} & {bytes([byte]) for byte in said}:
                done.set()

        if keyboard is not None:
            loop.add_reader(keyboard, pressed)
        loop.add_signal_handler(signal.SIGWINCH, screen.redraw)
        loop.add_signal_handler(signal.SIGTERM, done.set)
        following = loop.create_task(follow(source, screen), name="top")
        waiting = loop.create_task(done.wait(), name="quit")
        try:
            await asyncio.wait([following, waiting], return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
        finally:
            if keyboard is not None:
                loop.remove_reader(keyboard)
            for task in (following, waiting):
                task.cancel()
            await asyncio.gather(following, waiting, return_exceptions=True)


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """The keyboard, each key as it is pressed; None where there is none. Afterwards it is as it was."""
    if not sys.stdin.isatty():
        yield None
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
