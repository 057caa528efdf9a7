"""Values as they are given, text or what a file holds, into what a setting takes."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from neurogate import urls
from neurogate.config.declare import Setting
from neurogate.errors import ConfigError

MASK = "********"
"""What is shown for a secret that is set."""


def convert(raw: object, hint: Any, key: str, *, secret: bool = False) -> object:
    """`raw` as the type of a setting, within its bounds; text is split at commas where a list is wanted.

    Raises ConfigError naming `key` and what the value must be; a secret's value is not told, and its mask is none.
    """
    if isinstance(raw, str) and "tuple" in str(hint):
        raw = [item.strip() for item in raw.split(",") if item.strip()]
        if not raw:
            raise ConfigError(f"{key}: is set but names nothing; name something, or unset it")
    got = "" if secret else f" (got {raw!r})"
    if raw is None:
        raise ConfigError(f"{key}: has no value; give one, or remove it")
    try:
        value = msgspec.convert(raw, hint, strict=False)
    except msgspec.ValidationError as error:
        must = _choices(hint) or str(error).split(" - at ")[0]
        raise ConfigError(f"{key}: {must}{got}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}: must be a finite number{got}")
    if secret and MASK in (value if isinstance(value, tuple) else (value,)):  # shown, edited, and given back
        raise ConfigError(f"{key}: {MASK} stands for a secret where it is shown, and is none; give the secret itself")
    return value


def shown(setting: Setting, value: object) -> object:
    """A setting's value as it may be shown: secrets masked, URLs without their passwords, lists as lists."""
    if setting.secret:
        return [MASK] * len(value) if isinstance(value, tuple) else MASK if value else value
    if isinstance(value, tuple):
        return [shown(setting, item) for item in value]
    return urls.shown(value) if isinstance(value, str) and "://" in value else value


def _choices(hint: Any) -> str:
    """The values of a Literal, which msgspec does not tell, or of one beside true and false; empty for other types."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    words = [word for part in (kind, *get_args(kind)) if get_origin(part) is Literal for word in get_args(part)]
    if bool in get_args(kind):
        words += ["true", "false"]
    return f"must be one of {', '.join(str(word) for word in words if word != '')}" if words else ""
