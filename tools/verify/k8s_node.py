"""A real Kubernetes node of one rung, and questions to it.

`Node.up` builds Kubernetes if that has not been done (k8s-build.sh) and starts it in a network namespace (k8s-up.sh).
Pods, Services and the API are inside it: what asks them runs through `inside`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
NAMESPACE = "neurogate"
NODE_ADDRESS = "10.99.0.1"


class NoNodeError(Exception):
    """There can be no node here; the text says why."""


class Node(NamedTuple):
    """A node that runs."""

    run: Path
    kubectl: str
    netns: str

    @classmethod
    def up(cls, run: Path) -> Node:
        """Raises NoNodeError."""
        for reason, holds in (
            ("only root can run a node", os.geteuid() == 0),
            ("a node runs on Linux", platform.system() == "Linux"),
            (
                "Kubernetes is built and run from Debian's packages, and there is no apt-get",
                bool(shutil.which("apt-get")),
            ),
        ):
            if not holds:
                raise NoNodeError(reason)
        programs = _said("helm and kubectl could not be had", HERE / "get-kubectl-helm")
        binaries = _said("Kubernetes could not be built", HERE / "k8s-build.sh")
        kubectl = f"{programs}/kubectl"
        netns = "neurogate-k8s"
        environment = {**os.environ, "KUBECTL": kubectl, "NS": netns}
        try:
            _said("the node did not come up", HERE / "k8s-up.sh", binaries, run, environment=environment)
        except NoNodeError:
            subprocess.run([HERE / "k8s-down.sh", run], env=environment, check=False)
            raise
        node = cls(run, kubectl, netns)
        pause = run / "pause.tar"
        pause.write_bytes(pause_image(Path(binaries, "pause").read_bytes()))
        node.load(pause)
        return node

    def down(self) -> None:
        """End it, with everything that it ran."""
        subprocess.run(
            [HERE / "k8s-down.sh", self.run], env={**os.environ, "KUBECTL": self.kubectl}, timeout=300, check=False
        )

    def load(self, archive: Path) -> None:
        """Give it the images of an archive. Raises RuntimeError."""
        socket = self.run / "ctd" / "containerd.sock"
        done = subprocess.run(
            ["ctr", "-a", socket, "-n", "k8s.io", "images", "import", archive],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"ctr images import: {done.stderr.strip()[-1000:]}")

    def inside(self, *command: str | Path) -> list[str]:
        """The command, where it reaches pods and Services."""
        return ["nsenter", f"--net=/run/netns/{self.netns}", *map(str, command)]

    def try_kubectl(self, *words: str, given: str = "", timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """`kubectl ...` in the namespace neurogate, whatever becomes of it."""
        command = self.inside(self.kubectl, "--kubeconfig", self.run / "kc", "--namespace", NAMESPACE, *words)
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=timeout_s, check=False)

    def ask(self, *words: str, given: str = "", timeout_s: float = 120) -> str:
        """What `kubectl ...` printed. Raises RuntimeError with its last words when it failed."""
        done = self.try_kubectl(*words, given=given, timeout_s=timeout_s)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(words)}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout.strip()

    def get(self, *words: str) -> Any:
        """Objects, parsed."""
        return json.loads(self.ask("get", *words, "-o", "json"))

    def curl(self, *words: str) -> tuple[int, str]:
        """(status, body) of an HTTP request from the node; 0 when there is no answer."""
        done = subprocess.run(
            self.inside("curl", "-sS", "--max-time", "120", "-w", "\\n%{http_code}", *words),
            capture_output=True,
            text=True,
            check=False,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body or done.stderr


def pause_image(program: bytes) -> bytes:
    """An archive with the image localhost/pause:3.2: the one program that holds a pod's namespaces."""
    layer = _tar({"pause": program}, 0o755)
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": ["/pause"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": ["localhost/pause:3.2"], "Layers": ["layer.tar"]}]
    return _tar({"config.json": config, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}, 0o644)


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def _said(otherwise: str, *command: str | Path, environment: dict[str, str] | None = None) -> str:
    words: Sequence[str] = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, env=environment, text=True, check=False)
    if done.returncode:
        raise NoNodeError(f"{otherwise}: {done.stderr.strip()[-800:]}")
    return done.stdout.strip()
