"""The Docker engine of a rung, and questions to it.

`Docker.up` takes the engine that this machine has, or makes one where that can be had (docker-up.sh). Such a
one has its ports in a network namespace of its own: what asks a container has to run inside, with `inside`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from report import ROOT

HERE = Path(__file__).parent
OWN = ROOT / ".cache" / "docker"
"""Where an engine of this project's own lives; its images stay there."""


class NoDockerError(Exception):
    """There is no engine, and none can be made; the text says why."""


class Docker(NamedTuple):
    """A running engine."""

    environment: dict[str, str]
    namespace: str
    """The network namespace that published ports are in; empty for this machine's own."""

    @classmethod
    def up(cls) -> Docker:
        """The machine's engine, or one of our own. Raises NoDockerError."""
        if shutil.which("docker") and _said("docker", "version") is not None and _said("docker", "compose", "version"):
            return cls(dict(os.environ), "")
        if os.geteuid() != 0:
            raise NoDockerError("no Docker engine with Compose answers, and only root can run one")
        if shutil.which("apt-get") is None:
            raise NoDockerError("no Docker engine with Compose answers, and only on Debian one can be made")
        made = subprocess.run([HERE / "docker-up.sh", OWN], stderr=subprocess.PIPE, text=True, check=False)
        if made.returncode:
            raise NoDockerError(f"no Docker engine could be made: {made.stderr.strip()[-600:]}")
        return cls.own()

    @classmethod
    def own(cls) -> Docker:
        """The engine that `up` has made, by its env.sh."""
        shown = subprocess.run(
            ["bash", "-c", f". {OWN}/env.sh && env -0"], capture_output=True, text=True, check=True
        ).stdout
        environment = dict(entry.split("=", 1) for entry in shown.split("\0") if entry)
        return cls(environment, environment["DOCKER_NETNS"])

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command, where it reaches what containers publish."""
        return [*(["nsenter", f"--net={self.namespace}"] if self.namespace else []), *command]

    def down(self) -> None:
        """End it, if it is our own."""
        if self.namespace:
            subprocess.run([HERE / "docker-down.sh", OWN], check=False)

    def run(self, *words: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """`docker ...`, to its end, whatever that is."""
        return subprocess.run(
            ["docker", *words],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )

    def said(self, *words: str, timeout_s: float = 300) -> str:
        """What `docker ...` printed. Raises RuntimeError with its last words when it failed."""
        done = self.run(*words, timeout_s=timeout_s)
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(words)}: {done.stderr.strip()[-2000:]}")
        return done.stdout.strip()

    def inspect(self, kind: str, name: str) -> Any:
        """What the engine knows of an image, a container or a network."""
        return json.loads(self.said(kind, "inspect", name))[0]


class Fleet(NamedTuple):
    """compose.yaml as a project of its own."""

    docker: Docker
    project: str
    env_file: Path

    def words(self, *words: str) -> list[str]:
        """The arguments of docker."""
        return ["compose", "--project-name", self.project, "--env-file", str(self.env_file), *words]

    def run(self, *words: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """`docker compose ...`, to its end, whatever that is."""
        return self.docker.run(*self.words(*words), timeout_s=timeout_s)

    def container(self, service: str) -> str:
        """The name of a service's only container."""
        return f"{self.project}-{service}-1"

    def exit_code(self, service: str) -> int:
        """How a stopped container ended; 137 is killed."""
        return int(self.docker.inspect("container", self.container(service))["State"]["ExitCode"])


def _said(*command: str) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout if done.returncode == 0 else None
