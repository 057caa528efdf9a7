"""`neurogate top`: the live page as text, where pictures come from, and what is said when they do not."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from neurogate.cli import top
from neurogate.cli.top_view import seconds, sparkline, view
from neurogate.errors import NeuroGateError
from neurogate.gateway.live.picture import Picture
from neurogate.telemetry.access_log import clean
from real_loop import run_real
from top_support import ops_port, picture, worker


def drawn(shown: Picture, *, width: int = 160, height: int = 50, stale: str = "") -> str:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(view(shown, width=width, height=height, stale=stale))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_picture_as_text_has_workers_requests_and_what_happened() -> None:
    text = drawn(picture(worker(), worker(1, state="not_ready", breaker="half-open", why="it starts", slots_total=0)))

    for part in ("here", "up 1 h 1 min", "1 in flight, 0 queued", "2.5 requests/s", "first token 250 ms (p95 1.5 s)"):
        assert part in text
    for part in ("worker-0", "● ready", "2/4", "▄█", "○ not ready", "half-open", "it starts"):
        assert part in text
    for part in ("req-0", "decode", "1 min 5 s", "default", "key-1", "link lost, 2 times", "old-0", "10 s"):
        assert part in text


@pytest.mark.parametrize(("ready", "draining", "word"), [(True, True, "draining"), (False, False, "not ready")])
def test_the_head_says_how_the_gateway_is(ready: bool, draining: bool, word: str) -> None:
    assert word in drawn(picture(ready=ready, draining=draining)).splitlines()[0]


@pytest.mark.parametrize("height", [10, 24, 50])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_fits_into_the_terminal(width: int, height: int) -> None:
    shown = picture(*(worker(number) for number in range(30)), requests=100, recent=50)

    lines = drawn(shown, width=width, height=height, stale="stale: why").splitlines()

    assert len(lines) <= max(height, 15)
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [50, 80, 110])
def test_names_are_whole_however_narrow_it_is(width: int) -> None:
    lines = drawn(picture(worker(12), worker(13)), width=width).splitlines()
    assert any(line.startswith("worker-12 ") for line in lines)
    assert any(line.startswith("req-0 ") for line in lines)


def test_a_long_model_name_takes_nobody_elses_room() -> None:
    shown = picture(worker(12, models=("m" * 10_000,), state="unreachable"))
    row = next(line for line in drawn(shown, width=120).splitlines() if line.startswith("worker-12 "))
    assert "unreachable" in row


def test_what_has_no_room_is_counted() -> None:
    shown = picture(*(worker(number) for number in range(30)), workers_more=5)
    assert "and 27 more" in drawn(shown, height=24)


@pytest.mark.parametrize("evil", ["\x1b]0;gone\x07\x1b[2J", "[/x]", "[link=http://evil]", "[red]", "two\nlines"])
def test_words_of_others_are_neither_markup_nor_steer_the_terminal(evil: str) -> None:
    shown = picture(worker(id=evil, state=evil, breaker=evil, why=evil, models=(evil,)), gateway=evil, version=evil)
    rows = [msgspec.structs.replace(row, id=evil, model=evil, key_id=evil, worker=evil) for row in shown.requests]
    recent = [
        msgspec.structs.replace(each, kind=evil, worker=evil, reason=evil, request_id=evil) for each in shown.recent
    ]
    fleet = msgspec.structs.replace(shown.fleet, states={evil: 1})
    shown = msgspec.structs.replace(shown, requests=tuple(rows), recent=tuple(recent), fleet=fleet)
    console = Console(file=io.StringIO(), width=600, force_terminal=True, color_system=None)

    console.print(view(shown, width=600, height=50, stale=evil))

    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.count(clean(evil)) == 17
    assert len(text.splitlines()) == 9


def test_an_old_picture_says_so() -> None:
    assert "stale: gone" in drawn(picture(), stale="stale: gone")


def test_a_history_is_bars_with_gaps() -> None:
    assert sparkline((0.0, None, 5.0, 10.0), 10.0) == "▁ ▄█".rjust(20)
    assert sparkline((), 0.0) == " " * 20
    assert [seconds(value) for value in (None, 0.02, 9.96, 42.0, 90.0, 7260.0)] == [
        "-", "20 ms", "10.0 s", "42 s", "1 min 30 s", "2 h 1 min",
    ]  # fmt: skip


def test_one_picture_is_fetched_with_the_key() -> None:
    async def main() -> None:
        async with ops_port() as port:
            said = await top.Source(f"{port.url}/", "a-key").picture()
            assert top.read(said).workers[0].id == "worker-0"
            assert port.keys == ["Bearer a-key"]

    run_real(main())


def test_the_key_may_come_from_the_environment_but_not_as_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with ops_port() as port:
            for value in ("first-key,second", "ops:sha256$abc"):
                monkeypatch.setenv("NEUROGATE_ADMIN_KEY", value)
                await top.Source(port.url).picture()
            assert port.keys == ["Bearer first-key", ""]

    run_real(main())


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"{}", "--admin-key"),
        (404, b"{}", "METRICS_PORT"),
        (503, b'{"message": "20 look already"}', "20 look already"),
        (503, b'{"message": "\\u001b]0;gone"}', r"^\\x1b\]0;gone$"),
        (500, b"oops", "answered with 500"),
    ],
)
def test_a_refusal_says_what_to_change(status: int, body: bytes, said: str) -> None:
    async def main() -> None:
        async with ops_port() as port:
            port.status, port.body = status, body
            with pytest.raises(NeuroGateError, match=said):
                await top.Source(port.url).picture()
            with pytest.raises(NeuroGateError, match=said):
                await top.follow(top.Source(port.url), top.Screen(Console(), lambda _: None))

    run_real(main())


def test_nobody_there_and_no_url_say_what_to_change() -> None:
    async def main() -> None:
        for url in ("http://127.0.0.1:9", "no url"):
            with pytest.raises(NeuroGateError, match="--url"):
                await top.Source(url).picture()

    run_real(main())


def test_a_picture_of_another_version_is_not_understood() -> None:
    with pytest.raises(NeuroGateError, match="another version"):
        top.read(b'{"at": "yesterday"}')


def test_pictures_are_followed_and_what_breaks_later_is_told() -> None:
    shown: list[str] = []

    async def main() -> None:
        async with ops_port() as port, asyncio.TaskGroup() as tasks:
            port.ending.set()
            console = Console(file=io.StringIO(), width=100, height=30)
            told = asyncio.Event()

            def draw(drawing: Any) -> None:
                with console.capture() as capture:
                    console.print(drawing)
                shown.append(capture.get())
                if "does not" in shown[-1] or "answered with 500" in shown[-1]:
                    told.set()
                elif "ended the connection" in shown[-1]:
                    port.status = 500

            screen = top.Screen(console, draw)
            screen.redraw()  # nothing to draw yet
            following = tasks.create_task(top.follow(top.Source(port.url), screen, retry_s=0))
            await told.wait()
            following.cancel()

    run_real(main())
    assert sum("stale" not in each for each in shown) >= 2
    assert all("worker-0" in each for each in shown)


def test_one_picture_is_printed_as_a_table_or_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def one(_: top.Source) -> bytes:
        return msgspec.json.encode(picture(worker()))

    monkeypatch.setattr(top.Source, "picture", one)
    source = top.Source("http://nowhere")

    assert top.main(source, once=True, json=False) == 0
    assert "worker-0" in capsys.readouterr().out
    assert top.main(source, once=False, json=False) == 0  # there is no terminal
    assert "worker-0" in capsys.readouterr().out
    assert top.main(source, once=False, json=True) == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=Picture).gateway == "here"
