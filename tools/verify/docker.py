"""The rung of Docker: images built, compose up, a prompt answered, a worker cut off, a fleet stopped, on a real engine.

The engine is this machine's, or one made for the purpose (docker_host.py). Images that cannot be pulled have stand-ins
of the same names (docker-images.sh); of those only Grafana's is not the program itself. Ends with everything removed
but the engine's own files and images in .cache/docker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker_drills
import docker_images
import docker_smoke
from docker_host import Docker, Fleet, NoDockerError
from report import ROOT, Report

PROJECT = "ngverify"
KEY = "ng-verify-key-1"
INSIDE = "--inside"


def main() -> int:
    """Bring up an engine, and do the rest where its ports are."""
    signal.signal(signal.SIGTERM, _end)
    report = Report("docker")
    try:
        docker = Docker.up()
    except NoDockerError as error:
        report.skipped("everything", str(error))
        return report.finish()
    try:
        command = docker.inside([sys.executable, __file__, INSIDE])
        with subprocess.Popen(command, env=docker.environment) as process:
            try:
                return process.wait()
            finally:
                process.terminate()
    finally:
        docker.down()


def inside() -> int:
    """The checks."""
    signal.signal(signal.SIGTERM, _end)
    report = Report("docker")
    namespace = os.environ.get("DOCKER_NETNS", "")
    docker = Docker(dict(os.environ), namespace)
    whose = "of this machine" if not namespace else "made by docker-up.sh, with stand-ins for base images"
    report.ok("engine", f"{docker.said('version', '--format', '{{.Server.Version}}')}, {whose}")
    if docker_images.look_at_images(report, docker):
        with fleet(docker) as compose:
            if docker_smoke.look_at_fleet(report, compose, KEY, pulled=not namespace):
                asyncio.run(docker_drills.run(report, compose, KEY))
    return report.finish()


@contextmanager
def fleet(docker: Docker) -> Iterator[Fleet]:
    """compose.yaml under a name of its own, removed with its volumes in the end; the volume of models stays."""
    with tempfile.NamedTemporaryFile("w", prefix="neurogate-", suffix=".env") as file:
        settings = (ROOT / ".env.example").read_text().replace("neurogate-secret-key-1", KEY)
        file.write(f"{settings}\nDOCKER_TAG={docker_images.TAG}\n")
        file.flush()
        compose = Fleet(docker, PROJECT, Path(file.name))
        try:
            yield compose
        finally:
            compose.run("--profile", "*", "down", "--timeout", "5", "--remove-orphans")
            for volume in ("prometheus", "alertmanager", "grafana", "ollama"):
                docker.run("volume", "rm", f"{PROJECT}_{volume}")


def _end(*_: object) -> None:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(inside() if sys.argv[1:] == [INSIDE] else main())
