"""Where peers are installed: each Python package in a virtual environment of its own, Debian's unpacked only.

Both are made once, in the cache directory. A peer's packages never meet the project's, and nothing needs root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cache
from cache import NotMeasuredError

_DONE = ".whole"
_LIBRARIES = Path("usr/lib")


def venv(name: str, requirement: str) -> Path:
    """The `bin` of a virtual environment that has a package. Raises NotMeasuredError when it cannot be installed."""
    root = cache.directory() / "peers" / name
    if not (root / _DONE).exists():
        print(f"setting up {name}", file=sys.stderr, flush=True)
        shutil.rmtree(root, ignore_errors=True)
        _run([sys.executable, "-m", "venv", root], f"no virtual environment for {name}")
        _run(
            [root / "bin/pip", "install", "-q", "--disable-pip-version-check", requirement],
            f"pip cannot install {name}",
        )
        (root / _DONE).touch()
    return root / "bin"


def version_of(binaries: Path, package: str) -> str:
    """The version of a package in a virtual environment."""
    script = f"import importlib.metadata as m; print(m.version({package!r}))"
    return _run([binaries / "python", "-c", script], f"{package} is not whole")


def debian(name: str, packages: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """A program of Debian's and the environment it needs: the machine's own, or else packages unpacked into the cache.

    Raises NotMeasuredError where there is neither.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    if found := shutil.which(name, path=path):
        return Path(found), {}
    root = cache.directory() / "peers" / name
    if not (root / _DONE).exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise NotMeasuredError(f"there is no {name}, and this is no Debian to get it from")
        print(f"unpacking {name}", file=sys.stderr, flush=True)
        shutil.rmtree(root, ignore_errors=True)
        archives = root / "archives"
        archives.mkdir(parents=True)
        _run(["apt-get", "download", "-qq", *packages], f"apt-get cannot download {name}", cwd=archives)
        for archive in archives.glob("*.deb"):
            _run(["dpkg-deb", "-x", archive, root], f"{archive.name} cannot be unpacked")
        (root / _DONE).touch()
    libraries = os.pathsep.join(str(path) for path in (root / _LIBRARIES).glob("*-linux-gnu*"))
    return root / "usr/sbin" / name, {"LD_LIBRARY_PATH": libraries}


def told_version(program: Path, flag: str, pattern: str, environment: dict[str, str]) -> str:
    """The version a program tells of itself. Raises NotMeasuredError when it does not run."""
    try:
        done = subprocess.run([program, flag], capture_output=True, text=True, env=environment, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotMeasuredError(f"{program.name} does not run: {error}") from error
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "?"


def _run(command: Sequence[str | Path], trouble: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600, cwd=cwd)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise NotMeasuredError(f"{trouble}: {said[-1] if said else error}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMeasuredError(f"{trouble}: {error}") from error
    return done.stdout.strip()
