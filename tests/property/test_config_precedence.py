"""Every setting of every process, through every layer: the last layer that gives it wins, and is told as its source."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogate.config import Bundle, Setting, Source, layers, settings_of, value_of
from neurogate.errors import ConfigError
from neurogate.gateway.settings import GatewayConfig
from neurogate.local.sources import BUNDLES
from neurogate.worker.settings import WorkerConfig

SETTINGS: dict[type[Bundle], list[Setting]] = {
    bundle: list(settings_of(bundle).values()) for bundle in (GatewayConfig, WorkerConfig)
}
FIELDS: list[tuple[Any, Setting]] = [(bundle, setting) for bundle, its in SETTINGS.items() for setting in its]
LAYERS = ("file", "environment", "flag", "admin")


def as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, bool) else str(value)


@st.composite
def valid_values(draw: st.DrawFn, setting: Setting) -> Any:
    """A value that the setting's type and bounds take; not empty text, which gives none."""
    schema = msgspec.json.schema(setting.hint)
    return draw(_from_schema(schema, setting).filter(lambda value: value != ""))


def _from_schema(schema: dict[str, Any], setting: Setting) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([_from_schema(each, setting) for each in schema["anyOf"] if each.get("type") != "null"])
    match schema["type"]:
        case "integer":
            low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
            return st.integers(low, schema.get("maximum", low + 10**6))
        case "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum", 0.0) + 0.25)
            return st.floats(low, schema.get("maximum", low + 1e6), allow_nan=False)
        case "boolean":
            return st.booleans()
        case "array":
            words = st.text("abc019.", min_size=1, max_size=6)
            return st.lists(words, min_size=1, max_size=3).map(tuple)
        case "string":
            return st.text("abc019./:-_", min_size=max(1, schema.get("minLength", 0)), max_size=12)
    raise AssertionError(f"no values for {setting.key}: {schema}")


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_the_last_layer_that_gives_a_setting_wins(data: st.DataObject) -> None:
    bundle, setting = data.draw(st.sampled_from(FIELDS))
    given_in = data.draw(st.lists(st.sampled_from(LAYERS), unique=True))
    values = {layer: data.draw(valid_values(setting), label=layer) for layer in given_in}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "n.yaml"
        if "file" in values:
            file.write_text(json.dumps({setting.section: {setting.field: values["file"]}}))
        source = _Unchecked(
            bundle,
            path=str(file) if "file" in values else "",
            environ={setting.env: as_text(values["environment"])} if "environment" in values else {},
            flags={setting.env: as_text(values["flag"])} if "flag" in values else {},
            others=BUNDLES.values(),
        )
        found = source.read({setting.key: values["admin"]} if "admin" in values else {})

    last = max(given_in, key=LAYERS.index, default=None)
    expected = values[last] if last else setting.default
    told = {
        None: "default",
        "file": "n.yaml:1",
        "environment": f"env {setting.env}",
        "flag": f"flag {setting.flag}",
        "admin": "admin API",
    }
    assert value_of(found.config, setting) == expected
    assert found.sources[setting.key] == told[last]
    others = {key: origin for key, origin in found.sources.items() if key != setting.key}
    assert set(others.values()) <= {"default"}
    for other in SETTINGS[bundle]:
        if other.key != setting.key:
            assert value_of(found.config, other) == other.default


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_number_beyond_its_bounds_is_refused_in_every_layer_and_names_the_setting(data: st.DataObject) -> None:
    bounded = [
        (bundle, setting)
        for bundle, setting in FIELDS
        if get_origin(setting.hint) is not None and get_args(setting.hint)[0] in {int, float}
    ]
    bundle, setting = data.draw(st.sampled_from(bounded))
    layer = data.draw(st.sampled_from(("environment", "flag", "admin")))
    wrong = data.draw(st.sampled_from(["nan", "inf", "-inf", "x", "-99999999999"]))
    source = _Unchecked(
        bundle,
        environ={setting.env: wrong} if layer == "environment" else {},
        flags={setting.env: wrong} if layer == "flag" else {},
    )
    with pytest.raises(ConfigError) as caught:
        source.read({setting.key: wrong} if layer == "admin" else {})
    named = {"environment": setting.env, "flag": setting.flag, "admin": setting.key}[layer]
    assert str(caught.value).startswith(f"{named}: ")


class _Unchecked(Source[Any]):
    """A source that leaves out what settings say of each other: that has tests of its own."""

    def __init__(self, bundle: Any, **layers: Any) -> None:
        super().__init__(_unchecked(bundle), **layers)


@functools.cache
def _unchecked(bundle: Any) -> Any:
    return type("Unchecked", (bundle,), {"problems": lambda _: ()}, frozen=True, kw_only=True)


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """What a type declares does not change, and to read it anew is nine tenths of what an example costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "settings_of", functools.cache(settings_of))
        yield
