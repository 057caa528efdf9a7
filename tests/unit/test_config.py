"""Settings from the environment."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest

from neurogate.config import child_environment, descriptions, env, env_names, environment, load
from neurogate.errors import ConfigError


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    port: Annotated[int, env("TEST_PORT", "Port.", ge=0, le=65535)] = 8080
    ratio: Annotated[float, env("TEST_RATIO", "Share.", ge=0, le=1)] = 0.5
    addresses: Annotated[tuple[str, ...], env("TEST_ADDRESSES", "Addresses.", min_length=1)] = ("a:1",)
    level: Annotated[Literal["debug", "info"], env("TEST_LEVEL", "Level.")] = "info"
    verbose: Annotated[bool, env("TEST_VERBOSE", "Says more.")] = False
    secret: Annotated[str, env("TEST_API_KEY", "Secret.", min_length=8)] = ""
    limit: Annotated[int | None, env("TEST_LIMIT", "Limit.")] = None
    inner: int = 7

    def __post_init__(self) -> None:
        if self.port == 13:
            raise ValueError("TEST_PORT: 13 is taken, choose another one")


def test_defaults_hold_where_nothing_is_given():
    assert load(Settings, environ={}) == Settings()


def test_the_environment_wins_over_the_defaults():
    environ = {
        "TEST_PORT": " 9000 ",
        "TEST_RATIO": "1",
        "TEST_ADDRESSES": "a:1, b:2,, c:3 ,",
        "TEST_LEVEL": "debug",
        "TEST_VERBOSE": "true",
        "TEST_API_KEY": "long enough",
        "TEST_LIMIT": "5",
    }

    assert load(Settings, environ=environ) == Settings(
        port=9000,
        ratio=1.0,
        addresses=("a:1", "b:2", "c:3"),
        level="debug",
        verbose=True,
        secret="long enough",
        limit=5,
    )


def test_overrides_win_over_the_environment_and_none_is_not_given():
    settings = load(
        Settings,
        environ={"TEST_PORT": "9000", "TEST_RATIO": "0.1"},
        overrides={"port": 7000, "ratio": None, "inner": 8, "addresses": "x:1,y:2"},
    )

    assert (settings.port, settings.ratio, settings.inner, settings.addresses) == (7000, 0.1, 8, ("x:1", "y:2"))


def test_an_override_may_be_zero_or_false():
    settings = load(
        Settings, environ={"TEST_PORT": "9000", "TEST_VERBOSE": "1"}, overrides={"port": 0, "verbose": False}
    )

    assert (settings.port, settings.verbose) == (0, False)


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_variable_is_not_given(blank: str):
    assert load(Settings, environ={"TEST_PORT": blank}).port == 8080


def test_a_field_without_a_variable_is_not_read_from_the_environment():
    assert load(Settings, environ={"inner": "9", "INNER": "9"}).inner == 7


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("TEST_PORT", "http", "Expected `int`"),
        ("TEST_PORT", "65536", "Expected `int` <= 65535"),
        ("TEST_PORT", "-1", "Expected `int` >= 0"),
        ("TEST_RATIO", "1.5", "Expected `float` <= 1"),
        ("TEST_LEVEL", "loud", "must be one of debug, info"),
        ("TEST_ADDRESSES", ",", "is set but names nothing"),
        ("TEST_VERBOSE", "perhaps", "Expected `bool`"),
    ],
)
def test_a_bad_value_names_the_key_what_it_must_be_and_what_was_given(key: str, value: str, must: str):
    with pytest.raises(ConfigError) as caught:
        load(Settings, environ={key: value})

    assert str(caught.value).startswith(f"{key}: ")
    assert must in str(caught.value)
    assert f"(got {value!r})" in str(caught.value) or value == ","


def test_a_bad_secret_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        load(Settings, environ={"TEST_API_KEY": "hunter2"})

    assert "TEST_API_KEY" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_bad_override_names_the_key_as_well():
    with pytest.raises(ConfigError, match="TEST_PORT: "):
        load(Settings, environ={}, overrides={"port": 70000})


def test_a_bad_override_of_a_field_without_a_variable_names_the_field():
    with pytest.raises(ConfigError, match="inner: "):
        load(Settings, environ={}, overrides={"inner": "x"})


def test_what_the_settings_themselves_refuse_is_a_config_error():
    with pytest.raises(ConfigError, match="TEST_PORT: 13 is taken"):
        load(Settings, environ={"TEST_PORT": "13"})


def test_without_an_environment_the_process_has_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_PORT", "9001")

    assert load(Settings).port == 9001


def test_named_variables_that_are_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_PORT", "1")
    monkeypatch.delenv("TEST_RATIO", raising=False)

    assert environment("TEST_PORT", "TEST_RATIO") == {"TEST_PORT": "1"}


def test_a_childs_environment_is_this_ones_with_changes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_PORT", "1")
    monkeypatch.setenv("TEST_RATIO", "0.5")
    child = child_environment({"TEST_PORT": "2"})

    assert (child["TEST_PORT"], child["TEST_RATIO"]) == ("2", "0.5")
    assert environment("TEST_PORT") == {"TEST_PORT": "1"}


def test_the_documentation_has_names_defaults_and_descriptions():
    assert descriptions(Settings)[:2] == [("TEST_PORT", 8080, "Port."), ("TEST_RATIO", 0.5, "Share.")]
    assert [name for name, _, _ in descriptions(Settings)] == list(env_names(Settings).values())
    assert "inner" not in env_names(Settings)
