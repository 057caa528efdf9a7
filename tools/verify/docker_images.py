"""Builds the images as `make docker` does, and looks at what came of it."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from docker_host import Docker
from report import ROOT, Report

TAG = "verify"
GATEWAY_LIMIT_MB = 200
USER = "10001:10001"
LABELS = ("title", "description", "licenses", "version", "revision")
# Compilers and package managers' caches, and what makes wheels: all of it belongs to the building stages.
LEFT_BEHIND = """
import importlib.util, pathlib, shutil
found = [name for name in ("gcc", "cc", "make", "git") if shutil.which(name)]
found += [name for name in ("hatchling", "editables", "setuptools", "wheel") if importlib.util.find_spec(name)]
found += [path for path in ("/root/.cache", "/src", "/dist", "/installed") if pathlib.Path(path).exists()]
print(" ".join(found))
"""


def look_at_images(report: Report, docker: Docker) -> bool:
    """Everything about images; whether those of the fleet are there."""
    for file in ("gateway/Dockerfile", "worker/Dockerfile", "worker/Dockerfile.cuda"):
        done = docker.run(
            "build", "--check", "--build-arg", f"LLAMA_IMAGE={_llama_image()}", "--file", f"cmd/{file}", "."
        )
        said = (done.stdout + done.stderr).strip()
        report.expect(
            f"docker build --check {file}", done.returncode == 0, "" if done.returncode == 0 else said[-1000:]
        )
    if not _built(report, docker, "make docker", ["make", "docker", f"DOCKER_TAG={TAG}", "REGISTRY="]):
        return False
    for name in ("gateway", "worker"):
        _look_at(report, docker, name)
    _without_engine(report, docker)
    _cuda(report, docker)
    return True


def _built(report: Report, docker: Docker, what: str, command: list[str]) -> bool:
    done = subprocess.run(
        command, cwd=ROOT, env=docker.environment, capture_output=True, text=True, errors="replace", check=False
    )
    return report.expect(what, done.returncode == 0, "" if done.returncode == 0 else done.stderr.strip()[-3000:])


def _look_at(report: Report, docker: Docker, name: str) -> None:
    tag = f"neurogate-{name}:{TAG}"
    image = docker.inspect("image", tag)
    config = image["Config"]
    megabytes = image["Size"] / 1e6
    own = megabytes - docker.inspect("image", "python:3.12-slim")["Size"] / 1e6
    small = name != "gateway" or megabytes <= GATEWAY_LIMIT_MB
    limit = f" (limit {GATEWAY_LIMIT_MB})" if name == "gateway" else ""
    report.expect(
        f"{name} image, size", small, f"{megabytes:.0f} MB{limit}, of it {own:.0f} MB on top of Python's image"
    )
    report.expect(f"{name} image, user", config["User"] == USER, config["User"])
    missing = [label for label in LABELS if not config["Labels"].get(f"org.opencontainers.image.{label}")]
    report.expect(f"{name} image, labels", not missing, " ".join(missing))
    test: list[Any] = config["Healthcheck"]["Test"]
    report.expect(f"{name} image, health check without a shell", test[0] == "CMD", " ".join(test))
    left = _in(docker, tag, "python", "-c", LEFT_BEHIND).stdout.strip()
    report.expect(f"{name} image, nothing left of building it", not left, left)
    checked = _in(docker, tag, "neurogate", "check", "--process", name)
    report.expect(f"{name} image, runs on a read-only root", checked.returncode == 0, checked.stderr.strip()[-500:])


def _without_engine(report: Report, docker: Docker) -> None:
    done = _in(docker, f"neurogate-gateway:{TAG}", "python", "-c", "import neurogate.gateway.app, xllamacpp")
    report.expect(
        "gateway image, no engine in it",
        "No module named 'xllamacpp'" in done.stderr,
        (done.stderr.strip().splitlines() or [""])[-1],
    )


def _cuda(report: Report, docker: Docker) -> None:
    """The Dockerfile's steps, on a base that has no CUDA: that much can be known without a GPU."""
    base = _llama_image()
    command = ["make", "docker-cuda", f"DOCKER_TAG={TAG}", "REGISTRY=", f"LLAMA_IMAGE={base}"]
    if _built(report, docker, f"make docker-cuda on {base}", command):
        # Any program will do in the place of llama-server, which only upstream's image has.
        words = ("env", "NEUROGATE_LLAMA_SERVER_BIN=/bin/true", "neurogate", "check", "--process", "worker")
        done = _in(docker, f"neurogate-worker-cuda:{TAG}", *words)
        report.expect("CUDA image, runs on a read-only root", done.returncode == 0, done.stderr.strip()[-500:])
    report.skipped("CUDA image, generating on a GPU", "takes a GPU and upstream's image of llama-server")


def _llama_image() -> str:
    return os.environ.get("LLAMA_IMAGE", "python:3.12-slim")


def _in(docker: Docker, image: str, *command: str) -> subprocess.CompletedProcess[str]:
    hardened = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none"]
    return docker.run("run", "--rm", *hardened, "--entrypoint", command[0], image, *command[1:])
