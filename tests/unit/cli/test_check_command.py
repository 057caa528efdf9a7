"""`neurogate check`, and the reference that is made from the settings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from neurogate.cli import examples, reference
from neurogate.cli.main import main
from neurogate.config import Source, declared, settings_of
from neurogate.local.sources import BUNDLES

Run = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def neurogate(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process. Returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            main(arguments)
        code = exited.value.code
        return (code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


def test_check_shows_every_value_with_its_source_and_no_secret(
    neurogate: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "n.yaml"
    file.write_text("gateway:\n  retries: 1\nworker:\n  max_requests: 7\n")
    monkeypatch.setenv("API_KEYS", "a-very-secret-key,sk-secret-number-two")
    monkeypatch.setenv("HTTP_PORT", "8088")

    code, shown, errors = neurogate("check", "--config", str(file))

    lines = {
        line.split(" = ")[0]: re.split(r"\s+# ", line.split(" = ")[1]) for line in shown.splitlines() if "=" in line
    }
    assert (code, errors) == (0, "")
    assert lines["gateway.retries"] == ["1", "n.yaml:2"]
    assert lines["gateway.http_port"] == ["8088", "env HTTP_PORT"]
    assert lines["worker.max_requests"] == ["7", "n.yaml:4"]
    assert lines["keys.api_keys"] == ['["********", "********"]', "env API_KEYS"]
    assert lines["engine.engine"] == ['""', "default"]
    assert "secret" not in shown


def test_check_reads_the_file_that_the_environment_names(
    neurogate: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "n.toml"
    file.write_text("[gateway]\nretries = 1\n")
    monkeypatch.setenv("NEUROGATE_CONFIG", str(file))

    code, shown, _ = neurogate("check", "--process", "gateway", "--json")

    told = json.loads(shown)
    assert code == 0
    assert (told["valid"], told["problems"], list(told["processes"])) == (True, [], ["gateway"])
    assert told["processes"]["gateway"]["gateway.retries"] == {"value": 1, "source": "n.toml"}


def test_check_tells_all_that_is_wrong_once_and_exits_with_78(
    neurogate: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "n.yaml"
    file.write_text("gateway:\n  retrise: 1\nworker:\n  grpc_port: x\n")
    monkeypatch.setenv("NEUROGATE_LINK_SILENCE_S", "inf")
    monkeypatch.setenv("NEUROGATE_ENGIN", "sim")

    code, shown, errors = neurogate("check", "--config", str(file))

    assert (code, shown) == (78, "")
    assert sorted(line.split(" (")[0].split(": ")[1] for line in errors.splitlines()) == [
        "NEUROGATE_ENGIN",
        "NEUROGATE_LINK_SILENCE_S",
        "gateway.retrise",
        "worker.grpc_port",
    ]
    assert "did you mean NEUROGATE_ENGINE?" in errors

    code, shown, _ = neurogate("check", "--config", str(file), "--json")
    assert code == 78
    assert (json.loads(shown)["valid"], len(json.loads(shown)["problems"])) == (False, 4)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (
            {"HTTP_PORT": "9000", "METRICS_PORT": "9000"},
            "HTTP_PORT (env HTTP_PORT) and METRICS_PORT (env METRICS_PORT)",
        ),
        ({"HTTP_PORT": "9091"}, "HTTP_PORT (env HTTP_PORT) and METRICS_PORT (default): both are 9091"),
        ({"GRPC_PORT": "9090"}, "GRPC_PORT (env GRPC_PORT) and METRICS_PORT (default): both are 9090"),
        ({"WORKER_ADDRESSES": "a"}, "WORKER_ADDRESSES (env WORKER_ADDRESSES): 'a' is not host:port"),
        (
            {"WORKER_ADDRESSES": "http://box:50051"},
            "'http://box:50051' is not host:port, for example localhost:50051; leave the scheme out",
        ),
        (
            {"NEUROGATE_HTTPS_PORT": "8444"},
            "NEUROGATE_HTTPS_PORT (env NEUROGATE_HTTPS_PORT): HTTPS needs a certificate; set NEUROGATE_TLS_CERT",
        ),
        ({"NEUROGATE_LINK_TLS_NAME": "w"}, "NEUROGATE_LINK_TLS_NAME (env NEUROGATE_LINK_TLS_NAME): is compared only"),
        ({"NEUROGATE_CORS_ORIGINS": "*,example.com"}, "'example.com' is no origin: it must be * or scheme://host"),
        ({"NEUROGATE_CORS_ORIGINS": "https://example.com/"}, "'https://example.com/' is no origin"),
        ({"NEUROGATE_ENGINE": "openai"}, "NEUROGATE_ENGINE_URL: must be set for NEUROGATE_ENGINE=openai"),
        ({"NEUROGATE_ADMIN_KEY": "short"}, "NEUROGATE_ADMIN_KEY (env NEUROGATE_ADMIN_KEY): key 1 must have at least"),
        ({"NEUROGATE_ADMIN_KEY": "x" * 20 + "," + "x" * 20}, "a key comes twice"),
        ({"NEUROGATE_ADMIN_KEY": "me:sha256$" + "AB" * 32}, "key 1 must have at least"),
    ],
)
def test_settings_that_contradict_each_other_are_told(
    neurogate: Run, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    code, _, errors = neurogate("check")

    assert code == 78
    assert told in errors
    assert "short" not in errors


def test_what_would_not_start_is_told_with_its_process(neurogate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROGATE_MODEL_ALIASES", "nope")
    monkeypatch.setenv("NEUROGATE_LOG_DIR", "/dev/null/logs")

    code, shown, errors = neurogate("check")

    assert (code, shown) == (78, "")
    assert errors.splitlines() == [
        "neurogate: NEUROGATE_LOG_DIR: /dev/null/logs/_boot cannot be written: Not a directory",
        "neurogate: NEUROGATE_MODEL_ALIASES: 'nope' must look like alias=model (gateway)",
    ]
    assert neurogate("check", "--process", "gateway")[2] == errors.replace(" (gateway)", "")


def test_what_is_unwise_is_told_and_is_no_failure(neurogate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_KEYS_FILE", "/nonexistent")
    monkeypatch.setenv("API_KEY", "my-own-key-of-something")

    code, shown, errors = neurogate("check")

    nobody = "AUTH_ENABLED: authentication is on and there are no keys: every request is refused"
    assert code == 0
    assert "gateway.retries = 2" in shown
    assert errors.splitlines() == [
        "neurogate: warning: AUTH_KEYS_FILE: /nonexistent cannot be read: No such file or directory (gateway)",
        f"neurogate: warning: {nobody} (gateway)",
        "neurogate: warning: API_KEY: is no setting and is not read (did you mean API_KEYS?)",
    ]

    told = json.loads(neurogate("check", "--json")[1])
    assert (told["valid"], len(told["warnings"])) == (True, 3)


def test_a_wrong_file_ends_a_process_before_it_starts(neurogate: Run, tmp_path: Path) -> None:
    for command in ("gateway", "worker"):
        code, _, errors = neurogate(command, "--config", str(tmp_path / "none.yaml"))
        assert code == 78
        assert errors.startswith("neurogate: NEUROGATE_CONFIG: cannot read ")


def test_the_schema_is_published_fresh(neurogate: Run) -> None:
    _, shown, _ = neurogate("settings", "--json-schema")

    assert (DOCS / "neurogate.schema.json").read_text() == shown, "run: make docs"


def test_the_schema_knows_every_setting_and_takes_every_default() -> None:
    schema = json.loads(reference.schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)  # `jsonschema.validate` would check the schema every time
    for bundle in BUNDLES.values():
        for setting in settings_of(bundle).values():
            declared_there = schema["properties"][setting.section]["properties"][setting.field]
            assert declared_there["x-environment"] == setting.env
            assert declared_there["description"] == setting.description
            default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
            validator.validate({setting.section: {setting.field: default}})


@pytest.mark.parametrize(
    "document",
    [{"nothing": {}}, {"gateway": {"retrise": 1}}, {"gateway": {"retries": 11}}, {"gateway": {"balancer": "best"}}],
)
def test_the_schema_refuses_what_a_process_would(document: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(reference.schema()))


@pytest.mark.parametrize("kind", ["yaml", "toml"])
def test_the_examples_of_the_reference_load_into_every_process(kind: str, tmp_path: Path) -> None:
    page = (DOCS / "configuration.md").read_text()
    (example,) = re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)
    file = tmp_path / f"example.{kind}"
    file.write_text(example)

    found = {name: Source(bundle, path=str(file), others=BUNDLES.values()).read() for name, bundle in BUNDLES.items()}

    assert found["gateway"].config.limits.requests_per_minute == 60  # type: ignore[attr-defined]
    assert found["worker"].config.engine.slots == 8  # type: ignore[attr-defined]
    jsonschema.validate(yaml.safe_load(examples.YAML), json.loads(reference.schema()))


def test_the_reference_says_which_settings_reload() -> None:
    page = (DOCS / "configuration.md").read_text()

    assert "| `limits.requests_per_minute` | `NEUROGATE_REQUESTS_PER_MINUTE` |" in page
    for bundle in BUNDLES.values():
        for setting in settings_of(bundle).values():
            (row,) = re.findall(rf"^\| `{re.escape(setting.key)}` \|.*$", page, re.MULTILINE)
            assert ("| yes |" in row) is setting.reloads


def test_no_two_settings_of_a_process_share_a_name_or_a_flag() -> None:
    for bundle in BUNDLES.values():
        settings = list(settings_of(bundle).values())
        assert len({setting.env for setting in settings}) == len(settings)
        assert len({setting.flag for setting in settings}) == len(settings)
        assert all(setting.section and declared for setting in settings)
