"""llama.cpp as a child of the worker: the default engine.

The child is a process of its own so that a crash of the engine costs its requests and nothing more. Each life of the
child has a client of its own, with a fresh key that keeps every other local process out; requests that outlive their
child break, and none is sent to a child that is not healthy.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from neurogate.channel import Resume
from neurogate.engines.engine import (
    EngineCall,
    EngineFatalError,
    EngineReply,
    EngineUnavailableError,
    Figures,
    ModelInfo,
    Observation,
)
from neurogate.engines.llama_server import LlamaServerEngine
from neurogate.engines.llamacpp.contract import ChildConfig, write_config
from neurogate.engines.llamacpp.cores import usable_cores
from neurogate.engines.llamacpp.gguf import pooling_of, validate
from neurogate.engines.llamacpp.process import Launch, Log
from neurogate.engines.llamacpp.supervisor import Supervisor
from neurogate.engines.lost import reason_of
from neurogate.engines.settings import EngineSettings
from neurogate.errors import NeuroGateError
from neurogate.inference import GenerationEvent, Prompt

_HEALTH_POLL_S = 0.1
_KEY_BYTES = 32
_UBATCH = 512
"""Tokens computed at once where nothing asks for more, as in llama.cpp; the bundled one counts each such step."""


class _ChildClient(LlamaServerEngine):
    """The client of one life of the child; `without` are APIs that it has and that make no sense as it was started."""

    def __init__(self, url: str, *, without: frozenset[str], **settings: Any) -> None:
        super().__init__(url, **settings)
        self._without = without

    def _unreachable(self, error: BaseException) -> str:
        return f"the engine process does not answer ({reason_of(error)})"


def check_files(settings: EngineSettings) -> str:
    """The path of the binary that the settings name; empty for the bundled llama.cpp. Blocks.

    Raises EngineFatalError naming the setting whose file is not there.
    """
    for name, file in (
        ("NEUROGATE_ENGINE_CHAT_TEMPLATE", settings.chat_template),
        ("NEUROGATE_ENGINE_MMPROJ", settings.mmproj),
    ):
        if file and not Path(file).is_file():
            raise EngineFatalError(f"{name}: there is no file {file}")
    binary = shutil.which(settings.llama_server_bin) if settings.llama_server_bin else ""
    if binary is None:
        raise EngineFatalError(f"NEUROGATE_LLAMA_SERVER_BIN: {settings.llama_server_bin} is no program that can be run")
    return binary


class ManagedLlamaCppEngine:
    """Runs one model in one child process."""

    def __init__(
        self,
        settings: EngineSettings,
        model_path: Path,
        model_name: str,
        *,
        log: Log | None = None,
        mend: Callable[[Path, threading.Event], str] = lambda _path, _stop: "",
    ) -> None:
        """`mend` checks a model's file, puts it right if it can and says what it did; blocks until the event is set.

        Raises NeuroGateError when the file is broken and stays so.
        """
        self._settings = settings
        self._model_path = model_path
        self._model_name = model_name
        self._log: Log = log or structlog.get_logger("neurogate.engine")
        self._binary = ""
        self._pooling = "none"
        self._embeds = False
        self._ubatch = _UBATCH
        self._family = ""
        self._key = ""
        self._client: _ChildClient | None = None
        self._mend_model = mend
        self._stopping = threading.Event()
        self._silent_since: float | None = None
        self._supervisor = Supervisor(
            self._launch, self, log=self._log, load_timeout_s=settings.load_timeout_s, mend=self._mend
        )

    def __repr__(self) -> str:
        return f"<ManagedLlamaCppEngine {self._model_name} {self._supervisor!r}>"

    @property
    def kind(self) -> str:
        """`llamacpp`."""
        return "llamacpp"

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return self._supervisor.pid

    async def start(self) -> None:
        """Check what the child will need; `run` starts it. Raises EngineFatalError naming what is missing."""
        self._family = await asyncio.to_thread(validate, self._model_path)
        self._binary = await asyncio.to_thread(check_files, self._settings)
        own = await asyncio.to_thread(pooling_of, self._model_path)
        self._embeds = bool(own) or self._settings.pooling == "rank"
        self._pooling = self._choose_pooling(own)
        self._ubatch = self._settings.ubatch or (max(_UBATCH, self._settings.context_length) if own else _UBATCH)

    async def run(self) -> None:
        """Start the child and restart it whenever it dies; see Engine.run."""
        await self._supervisor.run()

    async def stop(self) -> None:
        """Cut what is under way, so that no child waits for it, then end the child and `run`."""
        self._stopping.set()
        await self.move_out()
        await self._supervisor.stop()

    async def observe(self) -> Observation:
        """What the child says, or why there is none to ask. One that says nothing for long is killed."""
        restarts = self._supervisor.restarts
        deaths = tuple(self._supervisor.deaths.items())
        client = self._client
        if client is not None and not self._supervisor.detail:
            seen = await client.observe()
            await self._bear_silence(answered=seen.ready)
            return replace(
                seen,
                models=tuple(replace(model, family=self._family) for model in seen.models),
                restarts=restarts,
                deaths=deaths,
                generates=not self._embeds,
                step_tokens=seen.step_tokens if self._binary else self._ubatch,
            )
        return Observation(
            ready=False,
            detail=self._supervisor.detail,
            loading=self._supervisor.loading,
            last_words=self._supervisor.last_words,
            models=(ModelInfo(self._model_name, loaded=False),),
            slots_total=self._settings.managed_slots,
            restarts=restarts,
            deaths=deaths,
        )

    async def figures(self) -> Figures:
        """The child's; none while there is no child."""
        client = self._client
        return await client.figures() if client is not None else Figures()

    async def heal(self, reason: str) -> bool:
        """Kill the child, which hangs; the supervisor starts another one."""
        return self._supervisor.kill(reason)

    @asynccontextmanager
    async def forward(self, call: EngineCall) -> AsyncGenerator[EngineReply, None]:
        """Send the client's bytes to the child; see Engine.forward."""
        async with self._healthy().forward(call) as reply:
            yield reply

    async def resume(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        """Continue an answer in the child; see Engine.resume."""
        async with aclosing(self._healthy().resume(call, said)) as events:
            async for event in events:
                yield event

    async def generate(self, prompt: Prompt) -> AsyncGenerator[GenerationEvent, None]:
        """Generate text in the child; see Engine.generate."""
        async with aclosing(self._healthy().generate(prompt)) as events:
            async for event in events:
                yield event

    async def move_in(self, url: str) -> None:
        """For the supervisor: connect to the new child and wait until it is healthy."""
        client = _ChildClient(
            url,
            model=self._model_name,
            api_key=self._key,
            slots=self._settings.managed_slots,
            connect_timeout_s=self._settings.connect_timeout_s,
            without=frozenset({"/v1/embeddings"}) if self._pooling == "rank" else frozenset(),
        )
        await client.start()
        self._client = client
        self._silent_since = None
        while not (await client.observe()).ready:  # noqa: ASYNC110 - another process: there is no event to wait for
            await asyncio.sleep(_HEALTH_POLL_S)

    async def move_out(self) -> None:
        """For the supervisor: drop the connections to the dead child."""
        client, self._client = self._client, None
        if client is not None:
            await client.stop()

    async def _bear_silence(self, *, answered: bool) -> None:
        now = asyncio.get_running_loop().time()
        if answered or self._supervisor.detail:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since >= self._settings.hang_s:
            await self.heal(f"it answered no health check for {self._settings.hang_s:g} s (NEUROGATE_ENGINE_HANG_S)")

    async def _mend(self) -> str:
        """After a death in loading: what was wrong with the model's file and is right again; empty when nothing was."""
        await asyncio.to_thread(check_files, self._settings)
        try:
            mended = await asyncio.to_thread(self._mend_model, self._model_path, self._stopping)
        except NeuroGateError as error:
            raise EngineFatalError(str(error)) from error
        await asyncio.to_thread(validate, self._model_path)
        return mended

    def _healthy(self) -> _ChildClient:
        if self._client is None or self._supervisor.detail:
            raise EngineUnavailableError(self._supervisor.detail)
        return self._client

    def _choose_pooling(self, own: str) -> str:
        """That of the settings, of the model, or the mean.

        An older llama-server gives up chat for embeddings, so one that is the user's own is not asked for both.
        """
        default = "none" if self._settings.llama_server_bin else "mean"
        return self._settings.pooling or own or default

    def _launch(self) -> Launch:
        self._key = secrets.token_urlsafe(_KEY_BYTES)
        port = self._settings.port
        if self._binary and not port:
            port = _free_port()
        module = "launch" if self._binary else "child"
        config = ChildConfig(
            parent_pid=os.getpid(),
            model_path=str(self._model_path),
            model_name=self._model_name,
            port=port,
            slots=self._settings.managed_slots,
            context_length=self._settings.context_length,
            threads=self._settings.threads or usable_cores(),
            gpu_layers=self._settings.gpu_layers,
            ubatch=self._ubatch,
            pooling=self._pooling,
            reproducible=self._settings.reproducible,
            chat_template=self._settings.chat_template,
            mmproj=self._settings.mmproj,
            api_key=self._key,
            binary=self._binary,
        )
        return Launch(
            command=(sys.executable, "-P", "-m", f"neurogate.engines.llamacpp.{module}"),
            config=write_config(config),
            url=f"http://127.0.0.1:{port}" if self._binary else "",
        )


def _free_port() -> int:
    """A port that is free now; should another process take it first, the child dies and the next one gets another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
