"""A smallest instance of a JSON schema: what the simulated engine says when its answer must be JSON.

The one idea: of all that a schema allows, take what costs least: only required properties, no items beyond the minimum,
the first of several alternatives. A schema that cannot be satisfied so, or is none, is refused and the place named;
nothing that breaks the schema is ever said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from neurogate.engines.sim.core import SimRefusedError
from neurogate.engines.sim.tokenizer import MARKER

_DEPTH_MAX = 32
_VALUES_MAX = 4096
_NUMBER_MAX = 1e15
_MATCHED_MAX = 20
"""Characters of what is tried on a pattern: a hostile one takes exponential time in them."""

_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "sim@example.com",
    "idn-email": "sim@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "http://example.com",
    "uri-reference": "http://example.com",
    "url": "http://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "json-pointer": "",
    "regex": "a",
}
_CANDIDATES = (MARKER, "", "a", "A", "0", "00", "000", "0000", "00000", "a0", "A0", *_FORMATS.values())
"""What is tried on a pattern, each also repeated up to the length asked for."""


def instance(schema: object) -> Any:
    """A value that the schema allows.

    Raises SimRefusedError (400) for what is no schema, or one that this cannot satisfy.
    """
    return _Builder(schema).value(schema, "$", 0)


class _Builder:
    def __init__(self, root: object) -> None:
        self._root = root
        self._values = 0

    def value(self, schema: object, at: str, depth: int) -> Any:
        self._values += 1
        if depth > _DEPTH_MAX or self._values > _VALUES_MAX:
            raise _unsatisfied(at, "the smallest instance is too large")
        if schema is True or schema == {}:
            return MARKER
        if not isinstance(schema, Mapping):
            raise _unsatisfied(at, "allows nothing" if schema is False else "is no schema")
        schema = self._merged(schema, at)
        if "not" in schema:
            raise _unsatisfied(at, "`not` is not simulated")
        if "const" in schema or "enum" in schema:
            return _listed(schema, at)
        kind = _type_of(schema, at)
        if kind in {"object", "array"}:
            return (self._object if kind == "object" else self._array)(schema, at, depth)
        if kind not in _SCALARS:
            raise _unsatisfied(at, f"has the type {kind!r}, which does not exist")
        return _SCALARS[kind](schema, at)

    def _merged(self, schema: Mapping[str, Any], at: str) -> Mapping[str, Any]:
        """The schema with its references and its first alternatives in place."""
        for _ in range(_DEPTH_MAX):
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = _both(self._target(schema["$ref"], at), rest, at)
                continue
            key = next((key for key in ("allOf", "anyOf", "oneOf") if key in schema), None)
            if key is None:
                return schema
            parts = schema[key] if key == "allOf" else [_first(schema[key], f"{at}.{key}")]
            if not isinstance(parts, list):
                raise _unsatisfied(f"{at}.{key}", "is no list")
            schema = {name: value for name, value in schema.items() if name != key}
            for part in parts:
                schema = _both(schema, part, f"{at}.{key}")
        raise _unsatisfied(at, "refers to itself")

    def _target(self, reference: object, at: str) -> object:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _unsatisfied(at, f"refers to {reference!r}, which is not within the schema")
        found: Any = self._root
        for step in filter(None, reference[1:].split("/")):
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise _unsatisfied(at, f"refers to {reference!r}, which does not exist")
            found = found[name]
        return found

    def _object(self, schema: Mapping[str, Any], at: str, depth: int) -> dict[str, Any]:
        for key in ("patternProperties", "propertyNames", "dependentRequired", "dependentSchemas"):
            if key in schema:
                raise _unsatisfied(f"{at}.{key}", "is not simulated")
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        if not isinstance(properties, Mapping) or not _is_texts(required):
            raise _unsatisfied(at, "needs an object in `properties` and texts in `required`")
        least = _count(schema, "minProperties", at)
        names = list(dict.fromkeys(required))
        names += [name for name in properties if name not in names][: max(0, least - len(names))]
        names += [f"p{number}" for number in range(least - len(names))]
        if len(names) > _count(schema, "maxProperties", at, default=_VALUES_MAX):
            raise _unsatisfied(at, "requires more properties than it allows")
        rest = schema.get("additionalProperties", True)
        return {name: self.value(properties.get(name, rest), f"{at}.{name}", depth + 1) for name in names}

    def _array(self, schema: Mapping[str, Any], at: str, depth: int) -> list[Any]:
        least = _count(schema, "minItems", at)
        if "contains" in schema or (schema.get("uniqueItems") and least > 1):
            raise _unsatisfied(at, "neither `contains` nor several unique items are simulated")
        if least > _count(schema, "maxItems", at, default=_VALUES_MAX):
            raise _unsatisfied(at, "requires more items than it allows")
        first = schema.get("prefixItems") or []
        if not isinstance(first, list):
            raise _unsatisfied(f"{at}.prefixItems", "is no list")
        items = [*first[:least], *([schema.get("items", True)] * (least - len(first)))]
        return [self.value(item, f"{at}[{index}]", depth + 1) for index, item in enumerate(items)]


_REMARKS = frozenset({"$defs", "definitions", "title", "description", "default", "examples", "$comment"})
"""Keywords that demand nothing."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}

_TELLTALES = {
    "properties": "object",
    "required": "object",
    "minProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "minLength": "string",
    "maxLength": "string",
    "pattern": "string",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}
"""What a schema without a type is about, by what it says."""


def _listed(schema: Mapping[str, Any], at: str) -> Any:
    """The first of the values that are listed, and of the type asked for."""
    if others := schema.keys() - _REMARKS - {"const", "enum", "type"}:
        raise _unsatisfied(f"{at}.{min(others)}", "is not simulated for listed values")
    listed = [schema["const"]] if "const" in schema else schema["enum"]
    kinds = schema.get("type", [*_TYPES])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    for value in listed if isinstance(listed, list) else []:
        enum = schema.get("enum")
        is_among = not isinstance(enum, list) or any(_same(value, one) for one in enum)
        if is_among and any(_TYPES[kind](value) for kind in kinds if isinstance(kind, str) and kind in _TYPES):
            return value
    raise _unsatisfied(at, "lists no value that it allows")


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON has it, where true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _type_of(schema: Mapping[str, Any], at: str) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = _first(kind, f"{at}.type")
    if kind is not None:
        return str(kind)
    return next((meant for key, meant in _TELLTALES.items() if key in schema), "string")


def _both(one: object, other: object, at: str) -> Mapping[str, Any]:
    """What meets two schemas, as far as they do not contradict each other."""
    one, other = ({} if one is True else one), ({} if other is True else other)
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        raise _unsatisfied(at, "is no schema")
    return {**one, **{key: _meeting(key, one[key], value, at) if key in one else value for key, value in other.items()}}


def _meeting(key: str, one: Any, other: Any, at: str) -> Any:
    """What meets both demands of one keyword."""
    if one == other or key in _REMARKS:
        return other
    if key == "properties" and isinstance(one, Mapping) and isinstance(other, Mapping):
        return {**one, **{name: {"allOf": [one[name], rest]} if name in one else rest for name, rest in other.items()}}
    if key == "required" and isinstance(one, list) and isinstance(other, list):
        return [*one, *other]
    if key.startswith(("min", "exclusiveMin")) and _is_number(one) and _is_number(other):
        return max(one, other)
    if key.startswith(("max", "exclusiveMax")) and _is_number(one) and _is_number(other):
        return min(one, other)
    raise _unsatisfied(f"{at}.{key}", "several of it at once are not simulated")


def _string(schema: Mapping[str, Any], at: str) -> str:
    shortest = _count(schema, "minLength", at)
    longest = _count(schema, "maxLength", at, default=_VALUES_MAX)
    if shortest > longest:
        raise _unsatisfied(at, "is of a length that cannot be had")
    form = schema.get("format")
    text = _FORMATS.get(form, MARKER) if isinstance(form, str) else MARKER
    pattern = schema.get("pattern")
    if pattern is None:
        return text.ljust(shortest, ".")[:longest]
    for candidate in (text, *_CANDIDATES):
        repeated = (candidate * (shortest // len(candidate) + 1))[:shortest] if candidate else ""
        text = candidate if len(candidate) >= shortest else repeated
        if shortest <= len(text) <= min(longest, _MATCHED_MAX) and _matches(pattern, text, at):
            return text
    raise _unsatisfied(f"{at}.pattern", "nothing that is known matches it")


def _matches(pattern: object, text: str, at: str) -> bool:
    try:
        return re.search(str(pattern), text) is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise _unsatisfied(f"{at}.pattern", f"is no regular expression ({error})") from error


def _integer(schema: Mapping[str, Any], at: str) -> int:
    allowed = _Range(schema, at)
    step = allowed.step or 1
    if step != int(step):
        raise _unsatisfied(f"{at}.multipleOf", "is not simulated for integers")
    value = math.ceil(allowed.low / step) * int(step)
    if value <= allowed.below:
        value += int(step)
    return int(allowed.checked(value, at))


def _number(schema: Mapping[str, Any], at: str) -> float:
    allowed = _Range(schema, at)
    value, step = allowed.low, allowed.step
    if step:
        value = math.ceil(value / step) * step
        value += step if value <= allowed.below else 0
    elif value <= allowed.below:
        value = value + 1 if value + 1 < allowed.high else (value + allowed.high) / 2
    value = allowed.checked(value, at)
    return int(value) if value == int(value) else value


_SCALARS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda schema, at: False,  # noqa: ARG005 - called like the others
    "null": lambda schema, at: None,  # noqa: ARG005 - called like the others
}


class _Range:
    """The numbers a schema allows."""

    def __init__(self, schema: Mapping[str, Any], at: str) -> None:
        for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
            if key in schema and not (_is_number(schema[key]) and abs(schema[key]) < _NUMBER_MAX):
                raise _unsatisfied(f"{at}.{key}", "is no number, or too large a one")
        self.step = schema.get("multipleOf", 0)
        if self.step < 0:
            raise _unsatisfied(f"{at}.multipleOf", "is negative")
        self.below = schema.get("exclusiveMinimum", -math.inf)
        """The value must be above this."""
        self._above = schema.get("exclusiveMaximum", math.inf)
        self._most = schema.get("maximum", math.inf)
        self.high = min(self._above, self._most)
        floor = max(schema.get("minimum", -math.inf), self.below)
        room = max(1, self.step) * 2
        self.low = floor if floor > -math.inf else min(0, self.high - room)
        """The least value to try."""

    def checked(self, value: float, at: str) -> float:
        """The value, if it is within the range after all."""
        if value > self._most or value >= self._above:
            raise _unsatisfied(at, "no number is simulated for it")
        return value


def _count(schema: Mapping[str, Any], key: str, at: str, *, default: int = 0) -> int:
    value = schema.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _unsatisfied(f"{at}.{key}", "is no count")
    if value > _VALUES_MAX and key.startswith("min"):
        raise _unsatisfied(f"{at}.{key}", "is too large")
    return value


def _first(values: object, at: str) -> Any:
    if not isinstance(values, list) or not values:
        raise _unsatisfied(at, "is no list with anything in it")
    return values[0]


def _is_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _unsatisfied(at: str, why: str) -> SimRefusedError:
    return SimRefusedError(400, f"the JSON schema at {at}: {why}", code="invalid_request", param="schema")
