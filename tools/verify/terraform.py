"""The second rung: Terraform's own tests of the module that decides, which needs no provider.

The root module needs the providers of kind, helm, kubernetes and grafana. It is validated where they can be
had, and skipped aloud where not; nothing is applied.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from report import ROOT, Report

FOLDER = ROOT / "deploy" / "terraform"


def run(*arguments: str, folder: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """Terraform on a folder; what it keeps goes to `data`, and a configuration of the user's is not asked for."""
    environment = {**os.environ, "TF_DATA_DIR": str(data), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
    configuration = environment.get("TF_CLI_CONFIG_FILE")
    if configuration and not Path(configuration).exists():
        environment["TF_CLI_CONFIG_FILE"] = os.devnull
    return subprocess.run(
        ["terraform", f"-chdir={folder}", *arguments, "-no-color"],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
        check=False,
    )


def test_module(module: Path, report: Report, data: Path) -> None:
    """Initialise, validate and test one module without providers."""
    for step in (("init", "-backend=false", "-input=false"), ("validate",), ("test",)):
        done = run(*step, folder=module, data=data)
        said = (done.stdout + done.stderr).strip()
        right = done.returncode == 0
        last = said.splitlines()[-1] if said else ""
        if not report.expect(f"{module.name}: terraform {step[0]}", right, last if right else said[-3000:]):
            return


def validate_root(report: Report, data: Path) -> None:
    """Validate the root module, if its providers can be had."""
    done = run("init", "-backend=false", "-input=false", "-lockfile=readonly", folder=FOLDER, data=data)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        report.skipped("root module: terraform validate", f"its providers cannot be had here: {said[:200]}")
        return
    done = run("validate", folder=FOLDER, data=data)
    report.expect("root module: terraform validate", done.returncode == 0, (done.stdout + done.stderr)[-3000:])


def main() -> int:
    """Test every module that has tests, then the root."""
    report = Report("terraform")
    if shutil.which("terraform") is None:
        report.skipped("everything", "terraform is not installed: https://developer.hashicorp.com/terraform/install")
        return report.finish()
    modules = sorted({tests.parent.parent for tests in FOLDER.glob("modules/*/tests/*.tftest.hcl")})
    report.expect("modules with tests", bool(modules), ", ".join(module.name for module in modules))
    with tempfile.TemporaryDirectory() as data:
        for module in modules:
            test_module(module, report, Path(data, module.name))
        validate_root(report, Path(data, "root"))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
