"""The promises of the layout: cmd is no package, imports have no effects, targets and settings are documented."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import neurogate
from neurogate.cli import reference
from neurogate.config import descriptions, env_names

ROOT = Path(__file__).parents[2]
BINARIES = sorted(ROOT.glob("cmd/*/main.py"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(neurogate.__path__, "neurogate.")
    if not module.name.endswith("__main__")
)

IMPORT_EACH = """
import importlib, os, stat, sys, threading

def sockets():
    opened = {}
    for number in range(256):
        try:
            opened[number] = os.fstat(number)
        except OSError:
            continue
    return {number for number, status in opened.items() if stat.S_ISSOCK(status.st_mode)}

at_first = sockets()
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert sockets() == at_first, name
    assert threading.enumerate() == [threading.main_thread()], (name, threading.enumerate())
"""


def test_cmd_is_not_a_package():
    """It would shadow the standard library's `cmd`, which pdb needs."""
    assert list((ROOT / "cmd").rglob("__init__.py")) == []
    subprocess.run([sys.executable, "-c", "import cmd; cmd.Cmd"], cwd=ROOT, check=True)


def test_there_is_a_binary_for_each_deployable():
    assert {binary.parent.name for binary in BINARIES} >= {"gateway", "worker"}


@pytest.mark.parametrize("binary", BINARIES, ids=lambda binary: binary.parent.name)
def test_binary_is_thin_and_has_help(binary):
    assert len(binary.read_text().splitlines()) <= 30
    done = subprocess.run([sys.executable, binary, "--help"], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout.startswith("Usage: neurogate ")


def test_importing_has_no_effects():
    """No output, no thread, no open file or socket, and nothing needed from the environment."""
    command = [sys.executable, "-W", "error", "-c", IMPORT_EACH, *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, env={}, cwd="/", check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_setting_is_in_the_reference():
    """Every settings struct of the package, wherever it is."""
    for name in MODULES:
        importlib.import_module(name)
    documented = {settings for _, _, settings, _ in reference.SECTIONS}
    structs = {struct for struct in _subclasses(msgspec.Struct) if struct.__module__.startswith("neurogate.")}

    assert {struct.__name__ for struct in structs if env_names(struct)} == {struct.__name__ for struct in documented}


def test_every_field_of_a_settings_struct_has_a_name_and_a_description():
    for _, _, settings, _ in reference.SECTIONS:
        fields = [field.name for field in msgspec.structs.fields(settings)]
        assert set(env_names(settings)) == set(fields)
        for env, _, description in descriptions(settings):
            assert description.endswith("."), env


def test_configuration_page_is_fresh():
    page = (ROOT / "docs" / "configuration.md").read_text()

    assert page == reference.markdown(), "run: make docs"


def test_every_make_target_has_a_help_text_and_is_phony():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][a-z0-9-]*):(?!=)(.*)$", makefile, re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY:((?:.*\\\n)*.*)$", makefile, re.MULTILINE)

    assert [name for name, rest in targets if "## " not in rest] == []
    assert sorted(name for name, _ in targets) == sorted(phony.replace("\\", "").split())


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    shown = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT, check=True).stdout

    for name in re.findall(r"^([a-z][a-z0-9-]*):.*## ", makefile, re.MULTILINE):
        assert f"\n  {name} " in shown


def test_lock_files_agree():
    """Installing the tools must not change what the product runs on."""
    runtime, dev = (_pins(ROOT / name) for name in ("requirements.lock", "requirements-dev.lock"))

    assert runtime
    assert {name: dev.get(name) for name in runtime} == runtime


def test_the_gateways_lock_is_the_runtime_without_what_its_image_leaves_out():
    """An image without an engine has what the tests ran with, and nothing is left out but what the Makefile lists."""
    runtime, gateway, build = (_pins(ROOT / f"requirements{name}.lock") for name in ("", "-gateway", "-build"))
    (listed,) = re.findall(r"^NOT_IN_GATEWAY := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert {name: runtime.get(name) for name in gateway | build} == gateway | build
    assert "xllamacpp" in runtime
    assert set(runtime) - set(gateway) - set(build) == set(listed.replace("\\", "").split())


def _pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def _subclasses(struct: type) -> set[type]:
    return {struct}.union(*(_subclasses(child) for child in struct.__subclasses__()))
