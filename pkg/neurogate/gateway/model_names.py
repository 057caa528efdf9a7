"""What clients may call models: aliases, and the model of a request that names none.

A name is resolved once, before anything else looks at it: the key's permissions, the queue and the picker all see the
real one. The engine must see it too, so a body that said something else gets the real name put in, and nothing else of
it is touched.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping

import msgspec

from neurogate.edge.settings import ModelRouteSettings
from neurogate.errors import ConfigError
from neurogate.model_names import known_as

_SETTING = "NEUROGATE_MODEL_ALIASES"

_MODEL_FIELD = re.compile(rb'("model"\s*:\s*)(?:"(?:[^"\\]|\\.)*"|null)')
"""A quote inside a JSON string is escaped, so this is a key, of whichever object."""

_encode = msgspec.json.encode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ModelNames:
    """The names of one gateway. Raises ConfigError for aliases that make no sense."""

    def __init__(self, settings: ModelRouteSettings) -> None:
        self.configure(settings)

    def configure(self, settings: ModelRouteSettings) -> None:
        """Take other names from now on. Raises ConfigError, and keeps those it has."""
        aliases = _resolved(dict(_pairs(settings.model_aliases)))
        self._aliases = aliases
        self._default = aliases.get(settings.default_model, settings.default_model)

    @property
    def aliases(self) -> Mapping[str, str]:
        """From alias to model."""
        return self._aliases

    def resolve(self, name: str, known: Container[str]) -> str:
        """The model that is meant: an alias's, the default for the empty name, `NAME` for `NAME:latest`.

        Empty when none is named and there is no default. A name that nobody knows stays what it is, for the 404.
        """
        name = self._aliases.get(name, name) if name else self._default
        if not name or name in known:
            return name
        close = known_as(name, known)
        return close if close in known else name


def with_model(body: bytes, model: str) -> bytes:
    """The body with this model; the values of all other fields stay byte for byte what they are.

    `body` is a JSON object, which the caller has made sure of. Raises ValueError for anything else.
    """
    name = _encode(model)
    found = list(_MODEL_FIELD.finditer(body))
    if len(found) == 1:
        match = found[0]
        spliced = body[: match.end(1)] + name + body[match.end() :]
        if bytes(_decode_fields(spliced).get("model", b"")) == name:  # it was the object's own field
            return spliced
    fields = _decode_fields(body)
    if "model" not in fields and fields:
        start = body.index(b"{") + 1
        return body[:start] + b'"model":' + name + b"," + body[start:]
    return _encode({**fields, "model": msgspec.Raw(name)})  # given twice: engines differ in which one they take


def names_one_model(body: bytes) -> bool:
    """Whether all readers of a JSON object see the same model in it.

    Go's decoder, which is Ollama's, takes `Model` for `model`: a body with both would be checked for the one and
    answered by the other. `body` is a JSON object, which the caller has made sure of.
    """
    return len({bytes(value) for name, value in _decode_fields(body).items() if name.lower() == "model"}) <= 1


def _pairs(entries: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for entry in entries:
        alias, _, model = (part.strip() for part in entry.partition("="))
        if not alias or not model:
            raise ConfigError(f"{_SETTING}: {entry!r} must look like alias=model")
        if alias in seen:
            raise ConfigError(f"{_SETTING}: {alias!r} is given twice")
        seen.add(alias)
        yield alias, model


def _resolved(aliases: dict[str, str]) -> dict[str, str]:
    """Every alias with its model, through other aliases where need be."""
    return {alias: _end_of(alias, aliases) for alias in aliases}


def _end_of(alias: str, aliases: dict[str, str]) -> str:
    name = alias
    for _ in aliases:
        name = aliases[name]
        if name not in aliases:
            return name
    raise ConfigError(f"{_SETTING}: {alias!r} leads back to itself")
