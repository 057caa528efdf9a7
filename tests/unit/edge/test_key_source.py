"""Where keys come from, and what a bad file does to those that are in force."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neurogate.config import load
from neurogate.edge import key_source
from neurogate.edge.key_source import KeySource, ReloadResult
from neurogate.edge.keyfile import KeyLines, hashed
from neurogate.edge.settings import KeySettings
from neurogate.errors import ConfigError, UnauthorizedError

ALICE, BOB = "sk-alice-xyz789", "sk-prod-abc123"
LETTERS = "sk-letters-of-the-environment"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "api_keys.txt"
    made.write_text(f"# keys\nalice:{ALICE}\n")
    made.chmod(0o600)
    return made


def source(file: Path | None = None, **settings: Any) -> KeySource:
    named = {"keys_file": str(file)} if file else {}
    return KeySource(KeySettings(**named, **settings), now=lambda: 0.0)


def reloaded(keys: KeySource) -> ReloadResult:
    return asyncio.run(keys.reload())


def taken(keys: KeySource, settings: KeySettings) -> ReloadResult:
    """What came of other settings. Raises ConfigError."""

    async def main() -> ReloadResult:
        return (await keys.stage(settings))()

    return asyncio.run(main())


def who(keys: KeySource, key: str) -> str:
    """The id, `anybody`, or why not."""
    try:
        return keys.ring.authenticate(key.encode()).key_id or "anybody"
    except UnauthorizedError as error:
        return error.message


NOT_KNOWN = "Incorrect API key provided: it is not known here; check it for typing errors"
MISCONFIGURED = "Authentication misconfigured: no API keys loaded"


def test_the_environments_and_the_files_keys_are_one_ring(file: Path) -> None:
    keys = source(file, api_keys=(LETTERS, hashed(BOB)))
    assert [who(keys, key) for key in (LETTERS, BOB, ALICE, "other")] == ["key-1", "key-2", "alice", NOT_KNOWN]
    assert keys.loaded == ReloadResult(3)


@pytest.mark.parametrize(
    ("enabled", "with_keys", "told"),
    [
        ("auto", False, "anybody"),
        ("auto", True, NOT_KNOWN),
        (True, False, MISCONFIGURED),
        (True, True, NOT_KNOWN),
        (False, False, "anybody"),
        (False, True, "anybody"),
    ],
)
def test_authentication_is_on_as_soon_as_there_are_keys_unless_told_otherwise(
    enabled: Any, with_keys: bool, told: str
) -> None:
    assert who(source(auth_enabled=enabled, api_keys=(LETTERS,) if with_keys else ()), "other") == told


@pytest.mark.parametrize(("given", "taken"), [("auto", "auto"), ("TRUE", True), ("0", False)])
def test_whether_keys_are_asked_for_is_a_word_or_a_truth_value(given: str, taken: object) -> None:
    assert load(KeySettings, environ={"AUTH_ENABLED": given}).auth_enabled == taken
    with pytest.raises(ConfigError, match=r"^AUTH_ENABLED: must be one of auto, true, false \(got 'yes'\)$"):
        load(KeySettings, environ={"AUTH_ENABLED": "yes"})


def missing(file: Path) -> None:
    file.unlink()


def blank(file: Path) -> None:
    file.write_text(" \n\n")


def torn(file: Path) -> None:
    file.write_text("alice\n# and no more")


def binary(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def loop_of_links(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


BREAK = pytest.mark.parametrize(
    ("broken", "why"),
    [
        (missing, "cannot be read: No such file or directory"),
        (blank, "is empty"),
        (torn, "has no valid key: line 1: a line is"),
        (binary, "is not UTF-8 text"),
        (directory, "cannot be read: Is a directory"),
        (pipe, "is not a file"),
        (loop_of_links, "cannot be read: Too many levels"),
    ],
)


@BREAK
def test_a_file_that_cannot_be_used_lets_nobody_in(file: Path, broken: Callable[[Path], None], why: str) -> None:
    broken(file)
    keys = source(file)
    assert who(keys, ALICE) == who(keys, "") == MISCONFIGURED
    assert keys.loaded.keys_loaded == 0
    assert keys.loaded.error.startswith("AUTH_KEYS_FILE: ")
    assert why in keys.loaded.error
    assert "stay" not in keys.loaded.error


@BREAK
def test_a_file_that_breaks_later_changes_nothing_and_says_so(
    file: Path, broken: Callable[[Path], None], why: str
) -> None:
    keys = source(file)
    broken(file)
    found = reloaded(keys)
    assert who(keys, ALICE) == "alice"
    assert found == keys.loaded
    assert found.keys_loaded == 1
    assert why in found.error
    assert found.error.endswith("; the keys of before stay")


def test_a_file_that_cannot_be_used_leaves_the_environments_keys(tmp_path: Path) -> None:
    keys = source(tmp_path / "none", api_keys=(LETTERS,))
    assert [who(keys, key) for key in (LETTERS, ALICE)] == ["key-1", NOT_KNOWN]
    assert keys.loaded.error


def test_a_file_beyond_all_measure_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_source, "FILE_BYTES_MAX", 10)
    assert "is larger than 10 bytes" in source(file).loaded.error


def test_removing_the_last_key_is_obeyed(file: Path) -> None:
    """Only comments are left: nobody writes those by mistake."""
    keys = source(file)
    file.write_text("# keys\n")
    assert reloaded(keys) == ReloadResult(0)
    assert who(keys, ALICE) == MISCONFIGURED


def test_a_repaired_file_counts_again(file: Path) -> None:
    file.rename(file.with_suffix(".away"))
    keys = source(file)
    file.with_suffix(".away").rename(file)
    assert reloaded(keys) == ReloadResult(1)
    assert who(keys, ALICE) == "alice"


def test_what_is_wrong_or_unwise_is_told_without_the_key(file: Path) -> None:
    file.write_text(f"alice:{ALICE}\nnonsense {BOB}\nkey-1:{BOB}\ncarol:{LETTERS}\n")
    file.chmod(0o644)
    keys = source(file, api_keys=(LETTERS, "short"))
    assert keys.loaded.warnings == (
        "API_KEYS: key-2 is shorter than 8 characters, easy to guess",
        f"{file}: line 2: a line is key_id:api_key[:rate_limit][:expiry]; the line is skipped",
        f"{file} is open to every user of this machine: chmod 600 {file}",
        "key-1: another one before it has the same id; only the first counts",
        "carol: another one before it has the same key; only the first counts",
    )
    assert [who(keys, key) for key in (ALICE, BOB, LETTERS)] == ["alice", NOT_KNOWN, "key-1"]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(file: Path) -> None:
    file.write_bytes(f"\ufeffalice:{ALICE}\r\nbob:{BOB}\r\n".encode())
    assert source(file).loaded == ReloadResult(2)


def test_a_change_is_seen_by_content_even_when_a_directory_link_is_swapped(tmp_path: Path) -> None:
    """As Kubernetes replaces the files of a ConfigMap or Secret."""
    for name, key in (("one", ALICE), ("two", BOB)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(f"x:{key}\n")
    data = tmp_path / "..data"
    data.symlink_to("one")
    file = tmp_path / "keys"
    file.symlink_to("..data/keys")
    keys = source(file)
    assert not keys.changed()
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(data)
    assert keys.changed()
    assert reloaded(keys).keys_loaded == 1
    assert not keys.changed()
    assert who(keys, BOB) == "x"


def test_a_file_that_vanishes_is_a_change_once(file: Path) -> None:
    keys = source(file)
    file.unlink()
    assert keys.changed()
    reloaded(keys)
    assert not keys.changed()


def test_without_a_file_nothing_changes() -> None:
    assert not source(api_keys=(LETTERS,)).changed()


def test_watching_reloads_when_the_content_changes_and_only_then(file: Path) -> None:
    async def main() -> None:
        keys = source(file, keys_poll_s=0.01)
        told: asyncio.Queue[ReloadResult] = asyncio.Queue()
        write = file.write_text
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(keys.watch(told.put_nowait), name="keys")
            write(f"bob:{BOB}\n")
            assert await told.get() == ReloadResult(1)
            assert who(keys, BOB) == "bob"
            write("")
            assert "is empty" in (await told.get()).error
            assert who(keys, BOB) == "bob"
            watching.cancel()
        assert told.empty()

    asyncio.run(main())


def test_a_file_that_is_written_slowly_is_read_when_it_is_whole(file: Path) -> None:
    """Each look at the half-written file finds more of it."""

    async def main() -> None:
        keys = source(file, keys_poll_s=0.01)
        told: asyncio.Queue[ReloadResult] = asyncio.Queue()
        looks = 0
        with file.open("a") as append:

            def looked() -> bytes:
                nonlocal looks
                looks += 1
                if looks <= 3:
                    append.write(f"writer{looks}:sk-key-number-{looks}\n")
                    append.flush()
                return file.read_bytes()

            keys._fingerprint = looked  # type: ignore[method-assign]
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(keys.watch(told.put_nowait), name="keys")
                assert await told.get() == ReloadResult(4)
                watching.cancel()

    asyncio.run(main())


def test_a_file_that_never_settles_is_read_all_the_same(file: Path) -> None:
    async def main() -> None:
        keys = source(file, keys_poll_s=0.001)
        told: asyncio.Queue[ReloadResult] = asyncio.Queue()
        numbers = itertools.count()
        keys._fingerprint = lambda: str(next(numbers)).encode()  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(keys.watch(told.put_nowait), name="keys")
            assert await told.get() == ReloadResult(1)
            watching.cancel()

    asyncio.run(main())


def test_new_settings_count_all_at_once(file: Path) -> None:
    keys = source(api_keys=(LETTERS,))
    assert taken(keys, KeySettings(keys_file=str(file), api_keys=(BOB,))) == ReloadResult(2)
    assert [who(keys, key) for key in (LETTERS, BOB, ALICE)] == [NOT_KNOWN, "key-1", "alice"]
    assert taken(keys, KeySettings(api_keys=(BOB,))) == ReloadResult(1)
    assert who(keys, ALICE) == NOT_KNOWN


def test_staged_settings_change_nothing_before_they_are_put_in_force(file: Path) -> None:
    async def main() -> None:
        keys = source(api_keys=(LETTERS,))
        put_in_force = await keys.stage(KeySettings(keys_file=str(file)))
        assert [who(keys, key) for key in (LETTERS, ALICE)] == ["key-1", NOT_KNOWN]
        assert put_in_force() == ReloadResult(1)
        assert [who(keys, key) for key in (LETTERS, ALICE)] == [NOT_KNOWN, "alice"]

    asyncio.run(main())


@BREAK
def test_another_file_that_cannot_be_used_is_refused(
    file: Path, tmp_path: Path, broken: Callable[[Path], None], why: str
) -> None:
    keys = source(file)
    other = tmp_path / "other.txt"
    other.write_text(f"bob:{BOB}\n")
    broken(other)
    with pytest.raises(ConfigError, match=r"^AUTH_KEYS_FILE: ") as refused:
        taken(keys, KeySettings(keys_file=str(other), api_keys=(LETTERS,)))
    assert why in str(refused.value)
    assert [who(keys, key) for key in (ALICE, LETTERS)] == ["alice", NOT_KNOWN]
    assert keys.loaded == ReloadResult(1)


def test_another_file_without_a_key_is_refused(file: Path, tmp_path: Path) -> None:
    keys = source(file)
    (tmp_path / "other").write_text("# keys\n")
    with pytest.raises(ConfigError, match=r"^AUTH_KEYS_FILE: .*other has no key$"):
        taken(keys, KeySettings(keys_file=str(tmp_path / "other")))
    assert who(keys, ALICE) == "alice"


def test_a_broken_file_does_not_keep_other_settings_of_keys_from_their_change(file: Path) -> None:
    """A key of the environment that leaked can be taken away all the same."""
    keys = source(file, api_keys=(LETTERS,))
    blank(file)
    found = taken(keys, KeySettings(keys_file=str(file)))
    assert (found.keys_loaded, "is empty; the keys of before stay" in found.error) == (1, True)
    assert [who(keys, key) for key in (ALICE, LETTERS)] == ["alice", NOT_KNOWN]


def test_the_loop_goes_on_while_keys_are_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read waits for the loop: on the loop itself it would wait for ever."""
    keys = source(file)
    turned = threading.Event()
    parse = key_source.parse

    def slowly(text: str) -> KeyLines:
        assert turned.wait(10)
        return parse(text)

    async def main() -> None:
        settings = KeySettings(keys_file=str(file), keys_poll_s=1)
        for read in (keys.reload, lambda: keys.stage(settings)):
            turned.clear()
            asyncio.get_running_loop().call_later(0.01, turned.set)
            await read()

    monkeypatch.setattr(key_source, "parse", slowly)
    asyncio.run(main())
    assert who(keys, ALICE) == "alice"


def test_a_reading_under_settings_that_were_replaced_meanwhile_is_dropped(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = source(file)
    replaced = threading.Event()
    parse = key_source.parse

    def slowly(text: str) -> KeyLines:
        assert replaced.wait(10)
        return parse(text)

    async def main() -> None:
        put_in_force = await keys.stage(KeySettings(api_keys=(LETTERS,)))
        monkeypatch.setattr(key_source, "parse", slowly)
        reading = asyncio.create_task(keys.reload())
        await asyncio.sleep(0)
        put_in_force()
        replaced.set()
        assert await reading == ReloadResult(1)
        assert [who(keys, key) for key in (ALICE, LETTERS)] == [NOT_KNOWN, "key-1"]

    asyncio.run(main())


@pytest.mark.parametrize("settings", [KeySettings(), KeySettings(auth_enabled=False)])
def test_a_reload_never_turns_authentication_off(settings: KeySettings) -> None:
    keys = source(api_keys=(LETTERS,))
    with pytest.raises(ConfigError, match=r"^AUTH_ENABLED: a reload never turns authentication off"):
        taken(keys, settings)
    assert who(keys, LETTERS) == "key-1"
    assert keys.ring.enforced


def test_a_reload_may_turn_authentication_on() -> None:
    keys = source()
    assert taken(keys, KeySettings(api_keys=(LETTERS,))) == ReloadResult(1)
    assert who(keys, "other") == NOT_KNOWN


def test_no_representation_shows_a_key(file: Path) -> None:
    settings = KeySettings(api_keys=(LETTERS,), keys_file=str(file))
    shown = f"{settings!r} {settings} {source(file, api_keys=(LETTERS,))!r} {source(file, api_keys=(LETTERS,)).loaded}"
    assert LETTERS not in shown
    assert ALICE not in shown
    assert "<KeySource <KeyRing 2 keys, enforced>>" in shown
