"""`neurogate keys`: make, list, remove and rotate the keys of the key file.

A key is printed once, when it is made, on standard output; everything else that is said is on standard error.
"""

from __future__ import annotations

import getpass
import re
import secrets
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from neurogate.config import load
from neurogate.edge.keyfile import (
    UNBOUNDED,
    KeyLine,
    LineError,
    check_id,
    check_key,
    check_line,
    expiry_at,
    hashed,
    line_of,
    parse,
    with_hash,
    with_key,
)
from neurogate.edge.keyfile_edit import Draft, KeyFileError, editing, open_to_others, read
from neurogate.edge.settings import KeySettings
from neurogate.errors import ConfigError

app = typer.Typer(help="The API keys of the key file.", no_args_is_help=True, rich_markup_mode=None)

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d{1,5})([mhdw])")

Name = Annotated[str, typer.Option(help="The key's id, as logs and limits call it.")]
File = Annotated[str, typer.Option(help="The key file. [AUTH_KEYS_FILE]")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the key and nothing else.")]
Hashed = Annotated[bool, typer.Option("--hashed", help="Store what the key hashes to, not the key.")]
Expires = Annotated[str, typer.Option(help="When it ends: 60m, 24h, 30d, 4w, or an ISO time. Empty is never.")]
Names = Annotated[str, typer.Option(help="Comma-separated; a trailing * stands for anything. Empty allows all.")]


@app.command()
def generate(
    *,
    name: Name,
    rate_limit: Annotated[
        int | None, typer.Option(min=0, help="Requests a minute; 0 is unlimited, without it the default holds.")
    ] = None,
    expires: Expires = "",
    tpm: Annotated[int | None, typer.Option(min=0, help="Tokens a minute, in the same way.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=0, help="Requests in flight, in the same way.")] = None,
    monthly: Annotated[int | None, typer.Option(min=0, help="Tokens a calendar month, in the same way.")] = None,
    models: Names = "",
    routes: Names = "",
    priority: Annotated[str, typer.Option(help="interactive or batch.")] = "",
    hashed_only: Hashed = False,
    file: File = "",
    quiet: Quiet = False,
) -> None:
    """Make a key, add it to the file, and print it: this once."""
    path = _path(file)
    key = _new_key()
    words = {
        "tpm": _text(tpm),
        "concurrent": _text(concurrent),
        "monthly": _text(monthly),
        "models": models.replace(",", "|"),
        "routes": routes.replace(",", "|"),
        "priority": priority,
    }
    stored = hashed(key) if hashed_only else key
    line = line_of(name, stored, rate_limit=_text(rate_limit), expiry=_expiry(expires), words=words)
    try:
        check_id(name)
        check_line(line)
    except LineError as error:
        raise typer.BadParameter(str(error)) from None
    with editing(path, create=True) as draft:
        draft.add(name, line)
    _tell_tightened(path, draft)
    _tell("" if quiet else f"added {name} to {path}; this is the only time that its key is shown")
    print(key)


@app.command(name="list")
def show(
    file: File = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Show the keys of the file, without the keys."""
    path = _path(file)
    found = parse(read(path))
    rows = [_row(line, time.time()) for line in found.lines]
    if as_json:
        print(msgspec.json.encode(rows).decode())
    else:
        _print_table(rows)
    for warning in found.warnings:
        print(f"{path}: {warning}", file=sys.stderr)
    if open_to_others(path):
        print(f"neurogate: warning: {path} is open to every user of this machine: chmod 600 {path}", file=sys.stderr)


@app.command()
def remove(name: Name, file: File = "", quiet: Quiet = False) -> None:
    """Take a key out of the file."""
    path = _path(file)
    with editing(path) as draft:
        draft.remove(draft.find(name)[0].number)
    _tell_tightened(path, draft)
    _tell("" if quiet else f"removed {name} from {path}; a running gateway refuses it from its next look on")


@app.command()
def rotate(
    name: Name, expires: Expires = "", hashed_only: Hashed = False, file: File = "", quiet: Quiet = False
) -> None:
    """Give an id a new key, print it, and leave its limits; its expiry too, unless another is given."""
    path, key, expiry = _path(file), _new_key(), _expiry(expires)
    with editing(path) as draft:
        line, text = draft.find(name)
        if not expiry and line.key.expires_at is not None and line.key.expires_at <= time.time():
            raise KeyFileError(f"{name} has expired: give it another end with --expires")
        draft.put(line.number, with_key(text, hashed(key) if hashed_only or line.hashed else key, expiry=expiry))
    _tell_tightened(path, draft)
    _tell("" if quiet else f"{name} has a new key; a running gateway refuses the old one from its next look on")
    print(key)


@app.command(name="hash")
def hash_key(
    name: Annotated[str, typer.Option(help="Replace this id's key in the file by its hash.")] = "",
    file: File = "",
    quiet: Quiet = False,
) -> None:
    """Print what may stand in a key's place; the key is read from standard input, or asked for."""
    if name:
        path = _path(file)
        with editing(path) as draft:
            line, text = draft.find(name)
            if not line.hashed:
                draft.put(line.number, with_hash(text))
        _tell_tightened(path, draft)
        _tell("" if quiet else f"{path} has the hash of {name}'s key now, no longer the key")
        return
    key = getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline()
    try:
        check_key(key.strip())
    except LineError as error:
        raise KeyFileError(str(error)) from None
    print(hashed(key.strip()))


def _path(given: str) -> Path:
    path = given or load(KeySettings).keys_file
    if not path:
        raise ConfigError("AUTH_KEYS_FILE: names no key file; set it, or give --file")
    return Path(path).expanduser()


def _new_key() -> str:
    """`sk-` and 256 random bits."""
    return f"sk-{secrets.token_urlsafe(32)}"


def _expiry(text: str) -> str:
    """As it stands in the file: an ISO time in UTC; empty for never."""
    if not text:
        return ""
    duration = _DURATION.fullmatch(text)
    try:
        at = time.time() + int(duration[1]) * _SECONDS[duration[2]] if duration else expiry_at(text)
    except LineError:
        raise typer.BadParameter(
            "--expires: give 60m, 24h, 30d, 4w, or an ISO time such as 2027-01-01T00:00:00Z"
        ) from None
    if at <= time.time():
        raise typer.BadParameter("--expires: that is over already")
    return _iso(at)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _row(line: KeyLine, now: float) -> dict[str, object]:
    caller, expires_at = line.key.caller, line.key.expires_at
    quota = caller.quota
    return {
        "id": caller.key_id,
        "requests_per_minute": _bound(quota.requests_per_minute),
        "tokens_per_minute": _bound(quota.tokens_per_minute),
        "concurrent": _bound(quota.concurrent),
        "tokens_per_month": _bound(quota.tokens_per_month),
        "models": sorted(caller.models) if caller.models is not None else None,
        "routes": sorted(caller.routes) if caller.routes is not None else None,
        "priority": caller.priority,
        "expires": None if expires_at is None else _iso(expires_at),
        "expired": expires_at is not None and expires_at <= now,
        "hashed": line.hashed,
    }


def _bound(number: int) -> int | str:
    return {0: "default", UNBOUNDED: "unlimited"}.get(number, number)


def _print_table(rows: Sequence[dict[str, object]]) -> None:
    titles = {
        "id": "id",
        "requests_per_minute": "requests/min",
        "tokens_per_minute": "tokens/min",
        "concurrent": "at once",
        "tokens_per_month": "tokens/month",
        "expires": "expires",
        "hashed": "stored",
        "models": "models",
        "routes": "routes",
        "priority": "priority",
    }
    cells = [list(titles.values()), *([_cell(name, row) for name in titles] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(name: str, row: dict[str, object]) -> str:
    value = row[name]
    if name == "hashed":
        return "hash" if value else "key"
    if name == "expires":
        return "never" if value is None else f"{value}{' (over)' if row['expired'] else ''}"
    if isinstance(value, list):
        return ",".join(value)
    return "all" if value is None else str(value)


def _tell(said: str) -> None:
    if said:
        print(said, file=sys.stderr)


def _tell_tightened(path: Path, draft: Draft) -> None:
    if draft.tightened:
        print(
            f"neurogate: warning: others than its owner could read or write {path}; its mode is 0600 now",
            file=sys.stderr,
        )
