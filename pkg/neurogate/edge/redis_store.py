"""The conversation with Redis: one task that owns the connection, and a circuit that nobody waits behind.

What is asked and told meanwhile gathers, and goes in one round trip when the last is over. Asking waits for an answer,
at most two timeouts; telling never waits, is kept over failures, and so must be harmless when it is told twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from neurogate.edge.limits import StoreObserver
from neurogate.edge.redis_scripts import REFRESH, RESERVE, SETTLE
from neurogate.urls import shown

_BATCH = 256
"""Scripts in one round trip: about 5 ms of Redis's time."""
_MAX_ASKED = 4096
_MAX_TOLD = 65536
_CONNECT_TIMEOUT_S = 1.0
_CLOSE_TIMEOUT_S = 1.0


class StoreDownError(Exception):
    """Redis gave no answer. What was asked may have been done or not."""


def client_of(url: str) -> Redis:
    """A client that has not connected yet. Raises ValueError for a URL that is none."""
    # Redis's own retries would run a script twice: whether to try again is known here only.
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), protocol=2, socket_timeout=None)


class Command:
    """One script to run."""

    __slots__ = ("answer", "args", "names", "script")

    def __init__(self, script: str, names: Sequence[str], args: Sequence[str | int]) -> None:
        self.script = script
        self.names = names
        self.args = args
        self.answer: asyncio.Future[Any] | None = None


class RedisStore:
    """Runs scripts in Redis. Only its own task talks to Redis."""

    def __init__(
        self,
        url: str,
        *,
        loop: asyncio.AbstractEventLoop,
        timeout_s: float,
        retry_s: float,
        probe: str,
        observer: StoreObserver,
    ) -> None:
        """`probe` names something that may be written, to see whether Redis takes writes.

        Raises ValueError for a URL that is none.
        """
        self._shown = shown(url)
        self._loop = loop
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._probe = probe
        self._observer = observer
        self._redis = client_of(url)
        self._scripts = {
            script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
            for script in (RESERVE, SETTLE, REFRESH)
        }
        self._asked: deque[Command] = deque()
        self._told: deque[Command] = deque(maxlen=_MAX_TOLD)
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._up_since = 0.0
        self._wait_first = False
        self.up = False
        """Whether Redis answered last."""

    def __repr__(self) -> str:
        state = "up" if self.up else "down"
        return f"<RedisStore {self._shown} {state}, {len(self._asked)} asked, {len(self._told)} told>"

    async def start(self) -> None:
        """Begin, and wait for the first attempt to reach Redis: a second at most."""
        self._task = self._loop.create_task(self._run(), name="limits-redis")
        await self._tried.wait()

    async def close(self) -> None:
        """Tell what is left to tell, for a second at most, and hang up."""
        self._closing.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_CLOSE_TIMEOUT_S)
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._told:
            self._observer.store_lost(self._shown, len(self._told))
        await self._redis.aclose()

    async def ask(self, command: Command) -> Any:
        """Run a script and return its answer.

        Raises StoreDownError at once while Redis is down. When it raises, or its caller is cancelled, the script may
        have run or may run yet.
        """
        if not self.up or len(self._asked) >= _MAX_ASKED:
            raise StoreDownError
        command.answer = self._loop.create_future()
        self._asked.append(command)
        self._wake.set()
        return await command.answer

    def tell(self, command: Command) -> None:
        """Have a script run sooner or later. When very many wait, the oldest is forgotten."""
        self._told.append(command)
        self._wake.set()

    async def _run(self) -> None:
        try:
            while not self._closing.is_set() or (self.up and self._told):
                if not self.up:
                    await self._reach()
                    continue
                self._wake.clear()
                batch = self._gather()
                if batch:
                    await self._exchange(batch)
                else:
                    await self._wake.wait()
        finally:
            self.up = False
            self._refuse_asked()

    async def _reach(self) -> None:
        """Try to reach Redis, at once or after a while."""
        if self._wait_first:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_s):
                    await self._closing.wait()
                    return
        try:
            async with asyncio.timeout(max(_CONNECT_TIMEOUT_S, self._timeout_s)):
                await self._redis.ping()
            async with asyncio.timeout(self._timeout_s):
                await self._redis.set(self._probe, 1, px=1000)
                await self._load()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again
            self._wait_first = True
            if not self._tried.is_set():
                self._observer.store_down(self._shown, _words(error))
        else:
            self.up = True
            self._up_since = self._loop.time()
            self._observer.store_up(self._shown)
        self._tried.set()

    async def _load(self) -> None:
        for script in self._scripts:
            await self._redis.script_load(script)

    def _gather(self) -> list[Command]:
        """What goes in the next round trip: first what somebody waits for."""
        batch: list[Command] = []
        while self._asked and len(batch) < _BATCH:
            command = self._asked.popleft()
            if command.answer is not None and not command.answer.done():  # its caller has not left
                batch.append(command)
        while self._told and len(batch) < _BATCH:
            batch.append(self._told.popleft())
        return batch

    async def _exchange(self, batch: list[Command]) -> None:
        """One round trip. Whatever goes wrong with one command is Redis's state, and so goes wrong with all."""
        try:
            async with asyncio.timeout(self._timeout_s):
                results = await self._send(batch)
                if any(isinstance(result, NoScriptError) for result in results):
                    await self._load()
                    missed = [at for at, result in enumerate(results) if isinstance(result, NoScriptError)]
                    for at, result in zip(missed, await self._send([batch[at] for at in missed]), strict=True):
                        results[at] = result
        except BaseException as error:
            self._failed(batch, error)
            if not isinstance(error, Exception):
                raise
            return
        failures = [result for result in results if isinstance(result, Exception)]
        undone: list[Command] = []
        for command, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                undone.append(command)
            elif command.answer is not None and not command.answer.done():
                command.answer.set_result(result)
        if failures:
            self._failed(undone, failures[0])

    async def _send(self, batch: list[Command]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in batch:
            pipeline.execute_command(
                "EVALSHA", self._scripts[command.script], len(command.names), *command.names, *command.args
            )
        return await pipeline.execute(raise_on_error=False)

    def _failed(self, undone: list[Command], error: BaseException) -> None:
        """Redis is down: everybody who asked hears it, what was told is told again later."""
        self.up = False
        # One that hangs, or breaks again and again, is left alone for a while; one that hung up may be back already.
        broke = isinstance(error, RedisConnectionError | OSError) and not isinstance(error, TimeoutError)
        self._wait_first = not broke or self._loop.time() - self._up_since < self._retry_s
        if isinstance(error, Exception):
            self._observer.store_down(self._shown, _words(error))
        self._refuse(undone)
        again = [command for command in undone if command.answer is None]
        room = _MAX_TOLD - len(self._told)
        self._told.extendleft(reversed(again[max(len(again) - room, 0) :]))
        self._refuse_asked()

    def _refuse_asked(self) -> None:
        self._refuse(list(self._asked))
        self._asked.clear()

    def _refuse(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if command.answer is not None and not command.answer.done():
                command.answer.set_exception(StoreDownError())


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, RedisError | OSError) and str(error) else type(error).__name__
