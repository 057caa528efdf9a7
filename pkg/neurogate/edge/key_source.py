"""Where the keys come from: API_KEYS and a file, read again when told to.

Reading is slow with many keys and happens in a thread; what it found is put in force by one assignment on the loop. A
file that became unreadable or senseless changes nothing: the keys loaded before stay, and the result says why.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from neurogate.config.settled import SETTLE_S, settled
from neurogate.edge.caller import Caller
from neurogate.edge.keyfile import KEY_CHARS_MIN, Key, digest, parse, stored_digest
from neurogate.edge.keys import Held, KeyRing, held
from neurogate.edge.settings import KeySettings
from neurogate.errors import ConfigError

FILE_BYTES_MAX = 16 * 1024 * 1024
_UNREADABLE = b""


class ReloadResult(msgspec.Struct, frozen=True):
    """What became of reading the keys. No key is in it."""

    keys_loaded: int
    """Keys that are in force now."""
    error: str = ""
    """Why the keys of before, if any, are still in force; empty when all is well."""
    warnings: tuple[str, ...] = ()
    """What was skipped, and what is unwise."""


class _FileError(Exception):
    """The file cannot be used."""


class _File(msgspec.Struct, frozen=True):
    """What a look at the file found, or what was left of the look before."""

    seen: bytes = _UNREADABLE
    keys: tuple[Key, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""


class _Reading(msgspec.Struct, frozen=True):
    """All keys of some settings, read and not yet in force."""

    settings: KeySettings
    file: _File
    keys: Held
    warnings: tuple[str, ...]


class KeySource:
    """The ring of one gateway, and the way to fill it again."""

    def __init__(self, settings: KeySettings, *, now: Callable[[], float]) -> None:
        """Reads the file at once: nothing is served before."""
        self._file = _File()
        self._settings = settings
        self.ring = KeyRing(enforced=enforces(settings), now=now)
        self.loaded = self._take(self._read(settings))
        """What the latest reading came to."""

    def __repr__(self) -> str:
        return f"<KeySource {self.ring!r}>"

    async def reload(self) -> ReloadResult:
        """Read the file again and put its keys in force, all at once. An error leaves its keys of before in force."""
        reading = await asyncio.to_thread(self._read, self._settings)
        if reading.settings == self._settings:  # else others came into force meanwhile, with keys of their own
            self._take(reading)
        return self.loaded

    async def stage(self, settings: KeySettings) -> Callable[[], ReloadResult]:
        """Read the keys of these settings; what is returned puts them in force, all at once.

        Raises ConfigError for settings that would turn authentication off, which takes a restart, and for another file
        than before that has no key. The same file may have become unreadable: then its keys of before stay, and the
        result says so.
        """
        if self.ring.enforced and not enforces(settings):
            raise ConfigError("AUTH_ENABLED: a reload never turns authentication off; restart for that")
        reading = await asyncio.to_thread(self._read, settings)
        if settings.keys_file and settings.keys_file != self._settings.keys_file:
            if reading.file.error:
                raise ConfigError(reading.file.error)
            if not reading.file.keys:
                raise ConfigError(f"AUTH_KEYS_FILE: {settings.keys_file} has no key")
        return lambda: self._take(reading)

    def changed(self) -> bool:
        """Whether the file has another content than when it was last read, however it was swapped. Reads it."""
        return bool(self._settings.keys_file) and self._fingerprint() != self._file.seen

    async def watch(self, tell: Callable[[ReloadResult], None]) -> None:
        """Reload whenever the file's content has changed, for as long as the caller's task lives."""
        while True:
            poll_s = self._settings.keys_poll_s
            await asyncio.sleep(poll_s)
            if await asyncio.to_thread(self.changed):
                await settled(self._fingerprint, pause_s=min(SETTLE_S, poll_s))
                tell(await self.reload())

    def _fingerprint(self) -> bytes:
        path = self._settings.keys_file
        try:
            return digest(_read(Path(path))[0]) if path else _UNREADABLE
        except _FileError:
            return _UNREADABLE

    def _read(self, settings: KeySettings) -> _Reading:
        """Read all of it. Blocks, and changes nothing: it is called in threads."""
        own, own_warnings = _from_settings(settings.api_keys)
        file = _look(settings.keys_file, before=self._file)
        keys, clashes = _merged(own, file.keys)
        return _Reading(settings, file, held(keys), (*own_warnings, *file.warnings, *clashes))

    def _take(self, reading: _Reading) -> ReloadResult:
        self._settings, self._file = reading.settings, reading.file
        self.ring.hold(reading.keys, enforced=enforces(reading.settings))
        self.loaded = ReloadResult(len(self.ring), reading.file.error, reading.warnings)
        return self.loaded


def enforces(settings: KeySettings) -> bool:
    """Whether a key is asked for: `auto` does as soon as any source of keys is named."""
    if settings.auth_enabled == "auto":
        return bool(settings.api_keys or settings.keys_file)
    return settings.auth_enabled


def _from_settings(api_keys: tuple[str, ...]) -> tuple[tuple[Key, ...], tuple[str, ...]]:
    keys, warnings = [], []
    for number, text in enumerate(api_keys, 1):
        stored = stored_digest(text)
        if stored is None and len(text) < KEY_CHARS_MIN:
            warnings.append(f"API_KEYS: key-{number} is shorter than {KEY_CHARS_MIN} characters, easy to guess")
        keys.append(Key(stored or digest(text.encode()), Caller(f"key-{number}")))
    return tuple(keys), tuple(warnings)


def _look(name: str, *, before: _File) -> _File:
    """The file's keys; those of before, and why, when it cannot be used."""
    if not name:
        return _File()
    path, seen = Path(name), _UNREADABLE
    try:
        data, mode = _read(path)
        seen = digest(data)
        keys, warnings = _from_file(path, data, mode)
    except _FileError as failure:
        stay = "; the keys of before stay" if before.keys else ""
        return _File(seen, before.keys, before.warnings, f"AUTH_KEYS_FILE: {failure}{stay}")
    return _File(seen, keys, warnings)


def _from_file(path: Path, data: bytes, mode: int) -> tuple[tuple[Key, ...], tuple[str, ...]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _FileError(f"{path} is not UTF-8 text") from None
    if not text.strip():
        raise _FileError(f"{path} is empty")
    found = parse(text)
    if found.warnings and not found.lines:
        raise _FileError(f"{path} has no valid key: {found.warnings[0]}")
    warnings = [f"{path}: {warning}" for warning in found.warnings]
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        warnings.append(f"{path} is open to every user of this machine: chmod 600 {path}")
    return tuple(line.key for line in found.lines), tuple(warnings)


def _merged(own: tuple[Key, ...], from_file: tuple[Key, ...]) -> tuple[list[Key], list[str]]:
    """Each id and each key once; the first counts."""
    ids: set[str] = set()
    digests: set[bytes] = set()
    keys, warnings = [], []
    for key in (*own, *from_file):
        key_id = key.caller.key_id
        if key_id in ids or key.digest in digests:
            what = "id" if key_id in ids else "key"
            warnings.append(f"{key_id}: another one before it has the same {what}; only the first counts")
            continue
        ids.add(key_id)
        digests.add(key.digest)
        keys.append(key)
    return keys, warnings


def _read(path: Path) -> tuple[bytes, int]:
    """Content and mode. A pipe is refused instead of waited for."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(FILE_BYTES_MAX + 1) if stat.S_ISREG(mode) else None
    except OSError as error:
        raise _FileError(f"{path} cannot be read: {error.strerror}") from error
    if data is None:
        raise _FileError(f"{path} is not a file")
    if len(data) > FILE_BYTES_MAX:
        raise _FileError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    return data, mode


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
