"""The first rung: linters and schemas of everything that deploys. Needs no daemon, no cluster and no root.

The linters live in an environment of their own (`make verify-tools`); other programs (terraform, kubectl,
promtool, amtool, systemd-analyze) are used when they are installed, and skipped aloud when not.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from report import ROOT, Report

TOOLS = ROOT / ".cache" / "verify" / "bin"
KUBERNETES = ("1.27", "1.37")
"""The oldest and the newest version that the manifests are held to."""
INSTALL = {
    "terraform": "terraform (https://developer.hashicorp.com/terraform/install)",
    "kubectl": "kubectl (https://kubernetes.io/docs/tasks/tools/)",
    "promtool": "Prometheus (Debian: apt-get install prometheus)",
    "amtool": "Alertmanager (Debian: apt-get install prometheus-alertmanager)",
    "systemd-analyze": "systemd",
}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository by git's patterns, those that are about to be committed too."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for each in listed if (path := ROOT / each).is_file()]


def shell_scripts() -> Iterator[Path]:
    """What a shell runs, by its first line."""
    for path in tracked(".ci/*", "tools/*", "deploy/*", "cmd/*"):
        with path.open("rb") as file:
            first = file.readline(80)
        if first.startswith(b"#!") and first.rstrip().endswith((b"/bash", b" bash", b"/sh", b" sh")):
            yield path


def there(report: Report, program: str, what: str) -> bool:
    """Whether a program is installed; says so when not."""
    if shutil.which(program) is not None:
        return True
    report.skipped(what, f"{program} is not installed: {INSTALL[program]}")
    return False


def look_at_images(report: Report) -> None:
    """Dockerfiles and the compose file."""
    files = tracked("cmd/*Dockerfile*", "deploy/*Dockerfile*")
    report.command(f"hadolint, {len(files)} Dockerfiles", [str(TOOLS / "hadolint"), *map(str, files)])
    compose = str(TOOLS / "docker-compose")
    for profile in ([], ["--profile", "ollama"]):
        command = [compose, "--env-file", ".env.example", "-f", "compose.yaml", *profile, "config", "-q"]
        report.command(" ".join(["compose config", *profile]), command)


def look_at_scripts(report: Report) -> None:
    """Shell scripts."""
    scripts = sorted(shell_scripts())
    report.command(f"shellcheck, {len(scripts)} scripts", [str(TOOLS / "shellcheck"), "-x", *map(str, scripts)])


def look_at_terraform(report: Report) -> None:
    """Formatting; its tests are the next rung."""
    if there(report, "terraform", "terraform fmt"):
        report.command("terraform fmt", ["terraform", "fmt", "-check", "-diff", "-recursive", "deploy/terraform"])


def look_at_manifests(report: Report) -> None:
    """The rendered manifests against the schemas of both ends of the supported range."""
    if not there(report, "kubectl", "kustomize and schemas"):
        return
    with tempfile.TemporaryDirectory() as directory:
        for folder in ("base", "overlays/kind", "overlays/production"):
            rendered = subprocess.run(
                ["kubectl", "kustomize", f"deploy/k8s/{folder}", "--load-restrictor=LoadRestrictionsNone"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            if not report.expect(f"kustomize {folder}", rendered.returncode == 0, rendered.stderr[-2000:]):
                continue
            file = Path(directory, folder.replace("/", "-") + ".yaml")
            file.write_text(rendered.stdout)
            for version in KUBERNETES:
                command = [str(TOOLS / "kubernetes-validate"), "--strict", "-k", version, str(file)]
                report.command(f"schemas of Kubernetes {version}, {folder}", command)


def look_at_chart(report: Report) -> None:
    """Helm's judgement of the chart, and whether the manifests are still what it renders."""
    got = subprocess.run([ROOT / "tools/verify/get-kubectl-helm"], capture_output=True, text=True, check=False)
    if got.returncode:
        report.skipped("the chart", f"helm could not be had: {got.stderr.strip()[-300:]}")
        return
    helm = f"{got.stdout.strip()}/helm"
    report.command("helm lint --strict", [helm, "lint", "--strict", "deploy/k8s/chart"])
    with tempfile.TemporaryDirectory() as directory:
        render = [sys.executable, "tools/k8s_render.py", helm, "--into", directory]
        if report.command("the chart renders", render):
            for folder in ("base", "overlays"):
                what = f"deploy/k8s/{folder} is what the chart renders (else: make k8s-render)"
                report.command(what, ["diff", "-r", f"deploy/k8s/{folder}", f"{directory}/{folder}"])


def look_at_policies(report: Report) -> None:
    """Checkov; every exception is in .checkov.yaml with its reason."""
    command = [str(TOOLS / "checkov"), "--config-file", ".checkov.yaml", "--skip-download", "--quiet", "--compact"]
    report.command("checkov", command)


def check_config(report: Report, config: Path) -> None:
    """Prometheus' configuration; Debian's programs are built without the discovery of Kubernetes."""
    command = ["promtool", "check", "config", "--syntax-only", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and "kubernetes_sd_configs not found in type" in done.stderr:
        report.skipped(f"promtool check config {config.name}", "this promtool is built without Kubernetes")
        return
    report.expect(
        f"promtool check config {config.name}", done.returncode == 0, done.stderr[-2000:] if done.returncode else ""
    )


def look_at_monitoring(report: Report) -> None:
    """Prometheus' own judgement of its files, and Alertmanager's."""
    folder = ROOT / "deploy" / "prometheus"
    if there(report, "promtool", "promtool check and test"):
        for config in sorted(folder.glob("prometheus*.yml")):
            check_config(report, config)
        rules = sorted(map(str, folder.glob("rules/*.yml")))
        report.command("promtool check rules", ["promtool", "check", "rules", *rules])
        tests = sorted(map(str, folder.glob("tests/*.yml")))
        report.command(f"promtool test rules, {len(tests)} files", ["promtool", "test", "rules", *tests])
    if there(report, "amtool", "amtool check-config"):
        for config in sorted(folder.glob("alertmanager*.yml")):
            report.command(f"amtool check-config {config.name}", ["amtool", "check-config", str(config)])


def look_at_units(report: Report) -> None:
    """systemd's own judgement of the units. Programs that are not installed here are no fault of theirs."""
    if not there(report, "systemd-analyze", "systemd units"):
        return
    for unit in tracked("deploy/systemd/*.service"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        wrong = [line for line in done.stderr.splitlines() if "neurogate" in line and "is not executable" not in line]
        report.expect(f"systemd-analyze verify {unit.name}", not wrong, "; ".join(wrong)[-2000:])


def main() -> int:
    """Look at everything."""
    report = Report("static")
    if not (TOOLS / "checkov").exists():
        report.failed("everything", "the linters are not there: run make verify-tools")
        return report.finish()
    for look in (
        look_at_images,
        look_at_scripts,
        look_at_terraform,
        look_at_manifests,
        look_at_chart,
        look_at_policies,
        look_at_monitoring,
        look_at_units,
    ):
        look(report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
