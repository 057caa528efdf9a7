"""What clients may call models, and how the real name gets into a body."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane_support import rig
from neurogate.edge.caller import ANYBODY, Caller
from neurogate.edge.settings import ModelRouteSettings
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.errors import ConfigError, ModelNotFoundError
from neurogate.gateway.model_list import find_model, list_models
from neurogate.gateway.model_names import ModelNames, with_model
from neurogate.virtual_time import run

KNOWN = {"tiny", "big:latest", "org/name"}


def names(*aliases: str, default: str = "") -> ModelNames:
    return ModelNames(ModelRouteSettings(model_aliases=aliases, default_model=default))


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("tiny", "tiny"),
        ("tiny:latest", "tiny"),
        ("big", "big:latest"),
        ("big:latest", "big:latest"),
        ("gpt-4", "org/name"),
        ("best", "org/name"),
        ("unknown", "unknown"),
        ("unknown:latest", "unknown:latest"),
        ("", "org/name"),
    ],
)
def test_a_name_is_resolved(asked: str, meant: str) -> None:
    assert names("gpt-4=org/name", " best = gpt-4 ", default="best").resolve(asked, KNOWN) == meant


def test_without_a_default_the_engine_chooses() -> None:
    assert names().resolve("", KNOWN) == ""


def test_an_alias_goes_before_a_model_of_its_name() -> None:
    """Whoever runs the gateway wrote it down."""
    assert names("tiny=big").resolve("tiny", KNOWN) == "big:latest"


def test_a_default_that_nobody_has_is_named_in_the_404() -> None:
    assert names(default="gone").resolve("", KNOWN) == "gone"


@pytest.mark.parametrize(
    ("aliases", "told"),
    [
        (("gpt-4",), "'gpt-4' must look like alias=model"),
        (("=tiny",), "'=tiny' must look like alias=model"),
        (("gpt-4= ",), "must look like alias=model"),
        (("a=x", "a=y"), "'a' is given twice"),
        (("a=a",), "'a' leads back to itself"),
        (("a=b", "b=c", "c=a"), "leads back to itself"),
    ],
)
def test_aliases_that_make_no_sense_name_the_setting(aliases: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=r"^NEUROGATE_MODEL_ALIASES: ") as caught:
        names(*aliases)
    assert told in str(caught.value)


def test_bad_new_aliases_leave_the_old() -> None:
    made = names("gpt-4=tiny")
    with pytest.raises(ConfigError):
        made.configure(ModelRouteSettings(model_aliases=("bad",)))
    assert made.resolve("gpt-4", KNOWN) == "tiny"
    made.configure(ModelRouteSettings(model_aliases=("gpt-5=tiny",)))
    assert made.aliases == {"gpt-5": "tiny"}


# Bodies


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a","messages":[]}', b'{"model":"new","messages":[]}'),
        (b'{ "x" : 1.50, "model" :\n"a\\"b" , "y":"\\u00e9"}', b'{ "x" : 1.50, "model" :\n"new" , "y":"\\u00e9"}'),
        (b'{"model":null}', b'{"model":"new"}'),
        (b' {"x":1}', b' {"model":"new","x":1}'),
        (b"{}", b'{"model":"new"}'),
        (b'{"tools":[{"model":"a"}]}', b'{"model":"new","tools":[{"model":"a"}]}'),
        (b'{"text":"\\"model\\":\\"a\\"","model":"b"}', b'{"text":"\\"model\\":\\"a\\"","model":"new"}'),
    ],
)
def test_nothing_but_the_model_changes(body: bytes, expected: bytes) -> None:
    assert with_model(body, "new") == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","x":1.50,"model":"b"}',
        b'{"model":"a","x":1.50,"y":{"model":"b"}}',
        b'{"x":1.50,"y":[{"model":"b"}],"model":"a"}',
        b'{"\\u006dodel":"a","x":1.50}',
        b'{"\\u006dodel":"a","x":1.50,"y":{"model":"b"}}',
    ],
)
def test_where_the_key_is_not_plain_the_values_stay_as_they_are(body: bytes) -> None:
    changed = with_model(body, "new")
    before, after = msgspec.json.decode(body), msgspec.json.decode(changed)
    assert after == {**before, "model": "new"}
    assert changed.count(b'"new"') == 1
    assert b"1.50" in changed
    fields = msgspec.json.decode(changed, type=dict[str, msgspec.Raw])
    assert changed.count(b'"model"') == 1 + bytes(fields.get("y", b"")).count(b'"model"')


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", '"model":"x"']), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["model", "a", "b"]) | st.text(), _JSON), st.text(min_size=1))
def test_any_object_gets_the_model_and_keeps_the_rest(fields: dict[str, Any], model: str) -> None:
    body = msgspec.json.encode(fields)
    assert msgspec.json.decode(with_model(body, model)) == {**fields, "model": model}


@pytest.mark.parametrize("body", [b"", b"[]", b'"model"'])
def test_what_is_no_object_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the decoder words it
        with_model(body, "new")


# Lists

REPORT = WorkerReport("w", ready=True, engine_kind="llamacpp", models=(ServedModel("tiny", context_length=512),))


def test_aliases_are_listed_with_what_they_stand_for() -> None:
    async def main() -> None:
        async with rig(1) as made:
            made.worker().tell(REPORT)
            aliases = names("gpt-4=tiny", "lost=gone")
            data: Any = list_models(made.pool, aliases, ANYBODY)["data"]
            assert [(entry["id"], entry.get("root")) for entry in data] == [("gpt-4", "tiny"), ("tiny", None)]
            assert find_model(made.pool, aliases, ANYBODY, "gpt-4")["context_length"] == 512
            with pytest.raises(ModelNotFoundError, match="the models are: gpt-4, tiny"):
                find_model(made.pool, aliases, ANYBODY, "lost")

    run(main())


def test_a_key_sees_its_own_models_only() -> None:
    async def main() -> None:
        async with rig(1) as made:
            made.worker().tell(REPORT)
            other = Caller("k", models=frozenset({"other"}))
            assert list_models(made.pool, names(), other)["data"] == []
            with pytest.raises(ModelNotFoundError, match="the models are: none"):
                find_model(made.pool, names(), other, "tiny")

    run(main())
