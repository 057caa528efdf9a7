"""The layers of a configuration: which one wins, where a value comes from, and what is told of a wrong one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from neurogate.config import Bundle, Listener, Problem, Source, env, settings_of, shared_ports
from neurogate.config.convert import MASK, shown
from neurogate.config.environment import is_service_link
from neurogate.errors import ConfigError


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """How it serves."""

    port: Annotated[int, env("NEUROGATE_T_PORT", "Port.", ge=0, le=65535)] = 80
    ratio: Annotated[float, env("NEUROGATE_T_RATIO", "Share.", ge=0, reloads=True)] = 0.5
    names: Annotated[tuple[str, ...], env("NEUROGATE_T_NAMES", "Names.")] = ("a",)
    level: Annotated[Literal["low", "high"], env("NEUROGATE_T_LEVEL", "Level.")] = "low"
    api_key: Annotated[str, env("NEUROGATE_T_API_KEY", "Key.", min_length=4)] = ""
    key_file: Annotated[str, env("NEUROGATE_T_KEY_FILE", "Its file.")] = ""
    api_keys: Annotated[tuple[str, ...], env("NEUROGATE_T_API_KEYS", "Keys.")] = ()
    redis: Annotated[str, env("NEUROGATE_T_REDIS", "URL.")] = ""
    kind: Annotated[Literal["a", "b", ""], env("NEUROGATE_T_KIND", "Kind.")] = ""
    addresses: Annotated[str, env("T_WORKER_ADDRESSES", "Addresses.")] = ""
    more: Annotated[str, env("NEUROGATE_T_WORKERS_ADDRESSES", "More of them.")] = ""

    def __post_init__(self) -> None:
        if self.port == 13:
            raise ValueError("NEUROGATE_T_PORT: 13 is not for us")


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """Something else."""

    port: Annotated[int, env("NEUROGATE_T_OTHER_PORT", "Port.", ge=0)] = 81
    free: Annotated[float, env("NEUROGATE_T_FREE", "Without bounds.")] = 0.0


class Config(Bundle, frozen=True, kw_only=True):
    """One process."""

    server: Server = Server()
    other: Other = Other()

    def problems(self) -> Iterable[Problem]:
        return shared_ports(
            [Listener("server.port", "0.0.0.0", self.server.port), Listener("other.port", "::1", self.other.port)]
        )


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """Another process's."""

    depth: Annotated[int, env("NEUROGATE_T_DEPTH", "Depth.")] = 1


class NeighbourConfig(Bundle, frozen=True, kw_only=True):
    """Another process."""

    server: Neighbour = Neighbour()
    pond: Neighbour = Neighbour()


def source(file: Path | None = None, **layers: Any) -> Source[Config]:
    return Source(Config, path=str(file or ""), others=[NeighbourConfig], **layers)


def yaml(directory: Path, text: str) -> Path:
    path = directory / "n.yaml"
    path.write_text(text)
    return path


def problems(made: Source[Config], overlay: Mapping[str, object] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        made.read(overlay)
    return str(caught.value).splitlines()


def test_each_layer_wins_over_those_before_and_is_told_as_the_source(tmp_path: Path):
    file = yaml(tmp_path, "server:\n  port: 1\n  ratio: 0.1\n  level: high\n  names: x, y\n")
    made = source(
        file,
        environ={"NEUROGATE_T_RATIO": "0.2", "NEUROGATE_T_LEVEL": "low", "NEUROGATE_T_NAMES": " "},
        flags={"NEUROGATE_T_LEVEL": "high"},
    )

    found = made.read({"server.port": 5})

    assert found.config == Config(server=Server(port=5, ratio=0.2, level="high", names=("x", "y")))
    assert found.sources == {
        "server.port": "admin API",
        "server.ratio": "env NEUROGATE_T_RATIO",
        "server.names": "n.yaml:5",
        "server.level": "flag --t-level",
        "server.api_key": "default",
        "server.key_file": "default",
        "server.api_keys": "default",
        "server.redis": "default",
        "server.kind": "default",
        "server.addresses": "default",
        "server.more": "default",
        "other.port": "default",
        "other.free": "default",
    }


def test_a_base_stands_in_for_the_defaults():
    base = Config(server=Server(port=7))

    assert source(base=base).read().config == base
    assert source(base=base, environ={"NEUROGATE_T_RATIO": "1"}).read().config.server.port == 7


def test_sections_and_variables_of_other_processes_are_not_ours_to_judge(tmp_path: Path):
    file = yaml(tmp_path, "pond:\n  depth: deep\nserver:\n  depth: 3\n")

    assert source(file, environ={"NEUROGATE_T_DEPTH": "x"}).read().config == Config()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("srever: {port: 1}", "srever (n.yaml:1): there is no such section (did you mean server?)"),
        ("zzz: {}", "zzz (it is empty): there is no such section"),
        ("server: {prot: 1}", "server.prot (n.yaml:1): there is no such setting (did you mean server.port?)"),
        ("other:\n  ratio: 1", "other.ratio (n.yaml:2): there is no such setting (did you mean server.ratio?)"),
        ("other: {level_: 1}", "other.level_ (n.yaml:1): there is no such setting (did you mean server.level?)"),
        ("other: {qqqqqqq: 1}", "other.qqqqqqq (n.yaml:1): there is no such setting"),
        ("server: {port: many}", "server.port (n.yaml:1): Expected `int`, got `str` (got 'many')"),
        ("server: {port: 70000}", "server.port (n.yaml:1): Expected `int` <= 65535 (got 70000)"),
        ("server: {level: off}", "server.level (n.yaml:1): must be one of low, high (got 'off')"),
        ("server: {names:}", "server.names (n.yaml:1): has no value; give one, or remove it"),
        ("server: {ratio: .inf}", "server.ratio (n.yaml:1): must be a finite number (got inf)"),
        ("server: {port: 13}", "NEUROGATE_T_PORT: 13 is not for us"),
    ],
)
def test_what_is_wrong_with_a_file_names_key_and_line(tmp_path: Path, text: str, told: str):
    assert problems(source(yaml(tmp_path, text))) == [told]


@pytest.mark.parametrize("number", ["inf", "nan", "-inf", "1e999"])
def test_a_number_must_be_finite(number: str):
    for name in ("NEUROGATE_T_RATIO", "NEUROGATE_T_FREE"):
        (told,) = problems(source(environ={name: number}))

        assert told.startswith(f"{name}: ")
        assert told.endswith(f"(got {number!r})")


def test_all_problems_are_told_at_once(tmp_path: Path):
    file = yaml(tmp_path, "server: {port: x}\nnothing: {a: 1}\n")

    told = problems(source(file, environ={"NEUROGATE_T_RATIO": "-1", "NEUROGATE_T_RATOI": "1"}), {"server.xyz": 1})

    assert [line.split(":")[0].split(" (")[0] for line in told] == [
        "nothing",
        "NEUROGATE_T_RATOI",
        "server.xyz",
        "server.port",
        "NEUROGATE_T_RATIO",
    ]
    assert "NEUROGATE_T_RATOI: there is no such setting (did you mean NEUROGATE_T_RATIO?)" in told


def test_a_variable_that_somebody_else_reads_is_known():
    environ = {"NEUROGATE_T_MARK": "1", "NEUROGATE_CONFIG": "x", "OTHER": "1", "NEUROGATE_BLANK": " "}

    assert source(environ=environ, variables={"NEUROGATE_T_MARK"}).read().config == Config()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NEUROGATE_PORT", "tcp://10.0.0.1:80"),
        ("NEUROGATE_T_PORT", "tcp://10.0.0.1:80"),
        ("NEUROGATE_SERVICE_HOST", "10.0.0.1"),
        ("NEUROGATE_GATEWAY_SERVICE_PORT", "80"),
        ("NEUROGATE_SERVICE_PORT_HTTP", "80"),
        ("NEUROGATE_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("NEUROGATE_PORT_80_TCP_PROTO", "tcp"),
        ("NEUROGATE_PORT_80_TCP_PORT", "80"),
        ("NEUROGATE_PORT_80_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_kubernetes_sets_for_a_service_of_that_name_is_not_a_setting(name: str, value: str):
    assert source(environ={name: value}).read().config == Config()


@pytest.mark.parametrize(
    ("name", "value"), [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")]
)
def test_where_the_api_of_kubernetes_is_may_be_a_setting(name: str, value: str):
    assert not is_service_link(name, value)


def test_a_port_that_is_no_service_link_is_judged():
    assert problems(source(environ={"NEUROGATE_PORT": "80"}))[0].startswith("NEUROGATE_PORT: there is no such setting")


def test_a_secret_is_never_told(tmp_path: Path):
    file = yaml(tmp_path, "server: {api_key: abc}")

    assert "abc" not in problems(source(file))[0]
    assert "abc" not in problems(source(environ={"NEUROGATE_T_API_KEY": "abc"}))[0]
    rows = {
        setting.key: value
        for setting, value, _ in source(
            environ={
                "NEUROGATE_T_API_KEY": "secret",
                "NEUROGATE_T_KEY_FILE": "/a/b",
                "NEUROGATE_T_REDIS": "redis://me:secret@host:1/0",
            }
        )
        .read()
        .rows()
    }
    assert rows["server.api_key"] == MASK
    assert rows["server.key_file"] == "/a/b"
    assert rows["server.redis"] == "redis://host:1/0"
    assert rows["server.names"] == ["a"]


def test_the_mask_of_a_secret_is_no_secret_wherever_it_comes_from(tmp_path: Path):
    file = yaml(tmp_path, f"server: {{api_key: '{MASK}'}}")

    told = [
        *problems(source(file)),
        *problems(source(environ={"NEUROGATE_T_API_KEY": MASK})),
        *problems(source(flags={"NEUROGATE_T_API_KEYS": f"a-key, {MASK} "})),
        *problems(source(), {"server.api_keys": [MASK]}),
    ]

    assert [line.partition(":")[0] for line in told] == [
        "server.api_key (n.yaml",
        "NEUROGATE_T_API_KEY",
        "--t-api-keys",
        "server.api_keys",
    ]
    assert all(f"{MASK} stands for a secret where it is shown" in line for line in told)
    assert source().read({"server.names": [MASK]}).config.server.names == (MASK,)


def test_a_value_that_came_by_flag_is_told_by_its_flag():
    assert problems(source(flags={"NEUROGATE_T_PORT": "x"})) == ["--t-port: Expected `int`, got `str` (got 'x')"]


def test_choices_are_told_without_the_empty_one():
    assert problems(source(environ={"NEUROGATE_T_KIND": "c"})) == ["NEUROGATE_T_KIND: must be one of a, b (got 'c')"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("T_WORKER_ADDRESS", "T_WORKER_ADDRESSES"),
        ("t_worker_addresses", "T_WORKER_ADDRESSES"),
        ("T_WORKERS_ADDRESSES", "NEUROGATE_T_WORKERS_ADDRESSES"),
    ],
)
def test_a_name_without_the_prefix_that_is_like_one_of_ours_is_a_warning(name: str, meant: str):
    found = source(environ={name: "x", "T_BLANK": " "}).read()

    assert found.config == Config()
    assert found.warnings == (f"{name}: is no setting and is not read (did you mean {meant}?)",)


@pytest.mark.parametrize(
    ("name", "value"),
    [("T_WORKER_ADDRESS", " "), ("T_WORKER_PORT", "tcp://10.0.0.1:80"), ("WORKER", "x"), ("T_WORKER_ADDRESSES", "x")],
)
def test_names_that_are_ours_or_unlike_ours_are_no_warning(name: str, value: str):
    assert source(environ={name: value}).read().warnings == ()


def test_an_unset_secret_shows_as_unset_and_a_list_of_them_by_its_length():
    setting = settings_of(Config)["server.api_key"]

    assert shown(setting, "") == ""
    assert shown(setting, ("a", "b")) == [MASK, MASK]


def test_ports_that_are_taken_twice_name_both_settings_and_their_sources():
    (told,) = problems(source(flags={"NEUROGATE_T_PORT": "81"}))

    assert told == (
        "NEUROGATE_T_PORT (flag --t-port) and NEUROGATE_T_OTHER_PORT (default): "
        "both are 81; every listener needs a port of its own"
    )


def test_listeners_of_two_addresses_may_have_one_port_and_those_that_are_off_or_free_never_meet():
    def meeting(*listeners: tuple[str, int]) -> int:
        return len(list(shared_ports(Listener(f"s.{at}", *given) for at, given in enumerate(listeners))))

    assert meeting(("10.0.0.1", 1), ("10.0.0.2", 1)) == 0
    assert meeting(("10.0.0.1", 1), ("10.0.0.1", 1)) == 1
    assert meeting(("10.0.0.1", 1), ("", 1)) == 1
    assert meeting(("a", 0), ("a", 0), ("a", -1), ("a", -1)) == 0


def test_without_a_file_the_fingerprint_never_changes(tmp_path: Path):
    file = yaml(tmp_path, "server: {port: 1}")

    assert source().fingerprint() == b""
    assert source(file).fingerprint() != b""
