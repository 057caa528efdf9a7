"""Where the keys come from: API_KEYS and a file, read again when told to.

A file that became unreadable or senseless changes nothing: the keys loaded before stay, and the result says why.
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
from neurogate.edge.keys import KeyRing
from neurogate.edge.settings import KeySettings

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


class KeySource:
    """The ring of one gateway, and the way to fill it again."""

    def __init__(self, settings: KeySettings, *, now: Callable[[], float]) -> None:
        self._own: tuple[Key, ...] = ()
        self._own_warnings: tuple[str, ...] = ()
        self._path: Path | None = None
        self._poll_s = settings.keys_poll_s
        self._seen = b""
        self._file_keys: tuple[Key, ...] = ()
        self._file_warnings: tuple[str, ...] = ()
        self.ring = KeyRing(enforced=enforces(settings), now=now)
        self.loaded = self.reload(settings)
        """What the latest reading came to."""

    def __repr__(self) -> str:
        return f"<KeySource {self.ring!r}>"

    def reload(self, settings: KeySettings | None = None) -> ReloadResult:
        """Read the file again and put its keys in force, all at once; `settings`, where given, replace those of before.

        Reads one small file; never raises. An error leaves the file's keys of before in force. Settings that would turn
        authentication off are refused: that takes a restart.
        """
        if settings is not None:
            if self.ring.enforced and not enforces(settings):
                self.loaded = ReloadResult(len(self.ring), "a reload never turns authentication off: restart for that")
                return self.loaded
            self._own, self._own_warnings = _from_settings(settings.api_keys)
            self._path = Path(settings.keys_file) if settings.keys_file else None
            self._poll_s = settings.keys_poll_s
        error = self._read_file()
        keys, clashes = _merged(self._own, self._file_keys)
        self.ring.replace(keys, enforced=self.ring.enforced if settings is None else enforces(settings))
        warnings = (*self._own_warnings, *self._file_warnings, *clashes)
        self.loaded = ReloadResult(len(self.ring), error, warnings)
        return self.loaded

    def changed(self) -> bool:
        """Whether the file has another content than when it was last read, however it was swapped. Reads it."""
        return self._path is not None and self._fingerprint() != self._seen

    async def watch(self, tell: Callable[[ReloadResult], None]) -> None:
        """Reload whenever the file's content has changed, for as long as the caller's task lives."""
        while True:
            await asyncio.sleep(self._poll_s)
            if await asyncio.to_thread(self.changed):
                await settled(self._fingerprint, pause_s=min(SETTLE_S, self._poll_s))
                tell(self.reload())

    def _fingerprint(self) -> bytes:
        try:
            return digest(_read(self._path)[0]) if self._path else _UNREADABLE
        except _FileError:
            return _UNREADABLE

    def _read_file(self) -> str:
        """Take the file's keys, or say why those of before stay."""
        if self._path is None:
            self._file_keys = self._file_warnings = ()
            return ""
        self._seen = _UNREADABLE
        try:
            data, mode = _read(self._path)
            self._seen = digest(data)
            self._file_keys, self._file_warnings = _from_file(self._path, data, mode)
        except _FileError as failure:
            return f"AUTH_KEYS_FILE: {failure}" + ("; the keys of before stay" if self._file_keys else "")
        return ""


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
