"""A running `up` is asked to restart its fleet, and tells how that goes."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from neurogate.errors import NeuroGateError
from neurogate.local import rolling
from neurogate.local.control import ask_to_roll, listening, serve
from neurogate.local.run_directory import CONTROL, StateSettings, is_live, live_directories


@asynccontextmanager
async def controlled(directory: Path, roll):
    with listening(directory / CONTROL) as listener:
        task = asyncio.get_running_loop().create_task(serve(listener, roll))
        yield
        task.cancel()
        await asyncio.wait([task])


async def two_steps(tell) -> bool:
    tell("first")
    await asyncio.sleep(0)
    tell("second")
    return True


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A directory whose name alone is longer than a Unix socket's may be."""
    made = tmp_path / ("x" * 100)
    made.mkdir()
    return made


def test_the_answer_comes_as_it_is_told(deep: Path) -> None:
    async def main() -> list[tuple[str, bool | None]]:
        async with controlled(deep, two_steps):
            assert (deep / CONTROL).stat().st_mode & 0o777 == 0o600
            return [(told.say, told.ok) async for told in ask_to_roll(deep, CONTROL)]

    assert asyncio.run(main()) == [("first", None), ("second", None), ("", True)]
    assert not (deep / CONTROL).exists()


def test_what_was_begun_goes_on_when_nobody_listens(tmp_path: Path) -> None:
    async def main() -> None:
        begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def roll(tell) -> bool:
            begun.set()
            await may_end.wait()
            for _ in range(3):
                tell("nobody hears this")
                await asyncio.sleep(0)
            ended.set()
            return False

        async with controlled(tmp_path, roll):
            asking = ask_to_roll(tmp_path, CONTROL)
            waiting = asyncio.get_running_loop().create_task(anext(asking))
            await begun.wait()
            waiting.cancel()
            await asyncio.wait([waiting])
            await asking.aclose()
            may_end.set()
            await ended.wait()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_who_says_something_else_gets_nothing(tmp_path: Path) -> None:
    async def main() -> bytes:
        async def never(_) -> bool:
            raise AssertionError("nobody asked")

        async with controlled(tmp_path, never):
            reader, writer = await asyncio.open_unix_connection(tmp_path / CONTROL)
            writer.write(b"GET / HTTP/1.1\r\n")
            said = await reader.read()
            writer.close()
            return said

    assert asyncio.run(main()) == b""


def test_a_fleet_that_runs_is_found_and_one_that_was_killed_is_not(tmp_path: Path) -> None:
    settings = StateSettings(state_home=str(tmp_path))
    runs = tmp_path / "neurogate" / "runs"
    assert live_directories(settings) == []
    for name in ("run-live", "run-killed", "run-ended"):
        (runs / name).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(runs / "run-killed" / CONTROL))
    with listening(runs / "run-live" / CONTROL):
        assert live_directories(settings) == [runs / "run-live"]
        assert not is_live(runs / "run-killed")
    assert live_directories(settings) == []


def test_the_fleet_is_the_one_that_runs_or_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(NeuroGateError, match="no fleet runs: start one"):
        rolling.main("")
    with pytest.raises(NeuroGateError, match="no fleet runs in /nowhere"):
        rolling.main("/nowhere")
    directories = [tmp_path / "neurogate" / "runs" / f"run-{number}" for number in (1, 2)]
    for directory in directories:
        directory.mkdir(parents=True)
    with (
        listening(directories[0] / CONTROL),
        listening(directories[1] / CONTROL),
        pytest.raises(NeuroGateError, match=r"several fleets run, choose one with --run: .*run-"),
    ):
        rolling.main("")


def test_where_the_platform_lacks_what_it_takes_that_is_said() -> None:
    with pytest.raises(NeuroGateError, match="can be restarted on Linux only: darwin has no SO_PEERCRED"):
        rolling.main("", lacking=lambda: "darwin has no SO_PEERCRED")


@pytest.mark.parametrize(
    ("well", "code", "last"), [(True, 0, "all of it was"), (False, 1, "the restart stopped there")]
)
def test_the_exit_code_says_whether_all_went_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], well: bool, code: int, last: str
) -> None:
    async def roll(tell) -> bool:
        tell("worker-0: draining")
        return well

    async def main() -> int:
        async with controlled(tmp_path, roll):
            return await asyncio.to_thread(rolling.main, str(tmp_path))

    assert asyncio.run(main()) == code
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "worker-0: draining"
    assert said[1].startswith(last)


def test_a_fleet_that_stops_meanwhile_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def roll(_) -> bool:
        raise OSError("the process ends")

    async def main() -> int:
        async with controlled(tmp_path, roll):
            return await asyncio.to_thread(rolling.main, str(tmp_path))

    assert asyncio.run(main()) == 1
    assert "the fleet stopped before its restart was done" in capsys.readouterr().err
