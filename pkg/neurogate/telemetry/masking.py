"""Secrets never reach a log: what is known to be one, and what looks like one, is masked in every field of every line.

Known are the values of secret settings and the passwords in URLs among the others. What looks like one: an
Authorization header or a field of that kind, a bearer token, a key's usual form, user and password in a URL. It is done
to the line as it is about to be written, so that an exception's text or a library's words are no way around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote

from neurogate import urls
from neurogate.config import MASK, Bundle, settings_of, value_of

_CHARS_MIN = 5
"""Of a secret that is looked for wherever it stands: a shorter one would tear ordinary words."""

_NAMES = frozenset(
    {
        "authorization",
        "proxy_authorization",
        "cookie",
        "set_cookie",
        "api_key",
        "apikey",
        "x_api_key",
        "admin_key",
        "password",
        "passwd",
        "secret",
        "token",
        "access_token",
        "auth_token",
    }
)
"""Fields that hold nothing but a secret."""

_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{1,31}://)[^\s/@'\"<>]+@")
_BEFORE = r"(?=[acpstx])(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
"""A name begins here; the `n` of a line feed that is shown as one does not belong to it.

The names' first letters are looked at first: a long text takes a third of the time.
"""

_MARK = r"""(\\*['"][ \t]*,[ \t]*b?(?=\\*['"])|(?:\\*['"])?[ \t]*[:=][ \t]*(?:b(?=['"]))?)"""
"""Between a name and its value. A comma only where both are in quotes: in a sentence it ends a thought."""

_QUOTED = r"""(?P<quote>\\*['"])(?:(?!(?<!\\)(?P=quote)).)+"""
"""A value up to the quote that it began with; one behind a backslash is part of it."""

_HEADER = re.compile(
    rf"{_BEFORE}((?:proxy-)?authorization|(?:set-)?cookie){_MARK}(?:{_QUOTED}|(?!\s|\\*['\"])[^\r\n]+)", re.IGNORECASE
)
"""Unquoted, they hold whatever the rest of the line is: parameters and more pairs, with any mark between them."""

_NAMED = re.compile(
    rf"{_BEFORE}(x-api-key|api[-_ ]?key|admin[-_]key|password|passwd|secret|(?:access|auth)[-_]token|token){_MARK}"
    rf"(?:{_QUOTED}|(?:(?:bearer|basic)[ \t]+)?(?!\s|\\*['\"])[^\s'\",;&)}}\]]+)",
    re.IGNORECASE,
)
_QUERY = re.compile(r"(?<=[?&])(key=)[^\s'\"&#]+", re.IGNORECASE)
"""Google's APIs have their key there; elsewhere the word stands for what is no secret as well."""

_SCHEME = re.compile(
    r"\b(bearer)\s+[A-Za-z0-9._~+/=-]{6,}|\b(basic)\s+(?=\S*[0-9=])[A-Za-z0-9+/]{8,}={0,2}", re.IGNORECASE
)
_SHAPES = re.compile(
    r"\b(?:sk|rk|pk)-[A-Za-z0-9_-]{16,}|\bhf_[A-Za-z0-9]{16,}|\bAIza[\w-]{35}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"
)
"""Keys of well-known services, and JSON Web Tokens."""


class Mask:
    """A processor of structlog's: gives the fields of a line without the secrets in them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: re.Pattern[str] | None = None
        self.know(secrets)

    def know(self, secrets: Iterable[str]) -> None:
        """These are the secrets now, and no others."""
        worth_it = sorted({secret for secret in secrets if len(secret) >= _CHARS_MIN}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, worth_it))) if worth_it else None

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Mask a line. Called from any thread."""
        for name, value in event.items():
            event[name] = self._field(name, value)
        return event

    def text(self, text: str) -> str:
        """The text without the secrets in it."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        text = _USERINFO.sub(rf"\1{MASK}@", text)
        text = _HEADER.sub(rf"\1\2\g<quote>{MASK}", text)
        text = _NAMED.sub(rf"\1\2\g<quote>{MASK}", text)
        text = _QUERY.sub(rf"\1{MASK}", text)
        text = _SCHEME.sub(lambda found: f"{found[1] or found[2]} {MASK}", text)
        return _SHAPES.sub(MASK, text)

    def _field(self, name: object, value: object) -> object:
        if value and isinstance(name, str) and name.lower().replace("-", "_") in _NAMES:
            return MASK
        return self._masked(value)

    def _masked(self, value: object) -> object:
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {name: self._field(name, inner) for name, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._masked(inner) for inner in value]
        shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        masked = self.text(shown)
        return value if masked == shown else masked


def secrets_of(config: Bundle) -> set[str]:
    """What may not be told of a process's configuration: secrets, and the passwords in its URLs."""
    found: set[str] = set()
    for setting in settings_of(type(config)).values():
        value = value_of(config, setting)
        for text in value if isinstance(value, tuple) else (value,):
            if not isinstance(text, str) or not text:
                continue
            if setting.secret:
                found |= {text, *_parts(text)}
            elif "://" in text and (userinfo := urls.userinfo(text)):
                password = userinfo.partition(":")[2]
                found |= {userinfo, password, unquote(password)}
    return found - {""}


def _parts(secret: str) -> Iterable[str]:
    """What of a secret is one as well: the key behind its id, the values of `name=value` pairs."""
    for entry in secret.split(","):
        for mark in (":", "="):
            name, found, value = entry.partition(mark)
            if found and name and value:
                yield from (value, unquote(value))
