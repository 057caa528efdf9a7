"""A headless Chromium that tests click through, over its DevTools protocol and nothing else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",  # it runs as root where tests do, and opens nothing but the page under test
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--mute-audio",
    "--hide-scrollbars",
)


def found() -> str | None:
    """The browser's command; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session = ""
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.problems: list[str] = []
        """What the console says of errors: scripts that raised, and what the page's policy refused."""

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters, **session})
        async with asyncio.timeout(30):
            return await answer

    async def listen(self) -> None:
        """Take what the browser says, until the connection is closed."""
        async for message in self._socket:
            said = json.loads(message.data)
            answer = self._answers.pop(said.get("id", 0), None)
            if answer is not None and not answer.done():
                if "error" in said:
                    answer.set_exception(AssertionError(said["error"]["message"]))
                else:
                    answer.set_result(said["result"])
            elif said.get("method") == "Runtime.exceptionThrown":
                details = said["params"]["exceptionDetails"]
                self.problems.append(details.get("exception", {}).get("description", details["text"]))
            elif said.get("method") == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.problems.append(said["params"]["entry"]["text"])

    async def attach(self) -> None:
        """Make a tab and listen to its console."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def size(self, width: int, height: int, *, phone: bool = False, scale: float = 1.0) -> None:
        """The window's inside."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    async def prefer(self, scheme: str) -> None:
        """What the system's colours are: `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def open(self, url: str) -> None:
        """Go there."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        """What an expression gives in the page; a promise is awaited."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    async def until(self, condition: str, timeout_s: float = 20) -> Any:
        """Wait for a condition to hold in the page, and give its value."""
        script = f"""new Promise((resolve, reject) => {{
            const over = Date.now() + {timeout_s * 1000};
            (function look() {{
                let value;
                try {{ value = ({condition}); }} catch (error) {{ value = false; }}
                if (value) resolve(value);
                else if (Date.now() > over) reject(new Error("not within {timeout_s} s: " + {json.dumps(condition)}));
                else setTimeout(look, 25);
            }})();
        }})"""
        for _ in range(3):  # a page that is being left takes its promises with it
            with contextlib.suppress(AssertionError):
                return await self.value(script)
        return await self.value(script)

    async def text(self, selector: str) -> str:
        """What an element says to a reader."""
        return str(await self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def click(self, selector: str) -> None:
        """Click in the middle of an element, as a mouse does."""
        where = await self.until(
            f"""(() => {{ const found = document.querySelector({json.dumps(selector)});
                found.scrollIntoView({{block: "center"}});
                const box = found.getBoundingClientRect();
                return box.width && [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1)

    async def press(self, key: str) -> None:
        """Press a key: `Enter`, `Tab`, `Escape` or ` `."""
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32}
        typed = {"Enter": "\r", " ": " "}.get(key)
        pressed = {"key": key, "windowsVirtualKeyCode": codes[key], **({"text": typed} if typed else {})}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **pressed)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=codes[key])

    async def type(self, words: str) -> None:
        """Type into whatever has the focus."""
        await self.call("Input.insertText", text=words)

    async def picture(self) -> bytes:
        """A picture of what the window shows, as PNG."""
        taken = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(taken["data"])


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Page]:
    """A browser with one tab, its data in an empty folder; nothing of it is left afterwards."""
    command = found()
    assert command is not None
    process = await asyncio.create_subprocess_exec(
        command, *_FLAGS, f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"DevTools listening on " not in (line := await process.stderr.readline()):
                assert line, "the browser ended"
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            drain = tasks.create_task(_drain(process.stderr))
            async with session.ws_connect(line.split()[-1].decode(), max_msg_size=0) as socket:
                page = Page(socket)
                listening = tasks.create_task(page.listen())
                await page.attach()
                try:
                    yield page
                finally:
                    listening.cancel()
                    drain.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            _kill(process.pid)
        await process.wait()


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass


def _kill(pid: int) -> None:
    """It and its children: they are one process group of their own."""
    os.killpg(pid, signal.SIGKILL)
