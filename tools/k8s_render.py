"""Render deploy/k8s/chart into what `kubectl apply -k` takes: a base, and overlays that are patches to it.

    python tools/k8s_render.py HELM [--into DIRECTORY]

The chart is the only source (ADR 0028). The base is its rendering with default values, one file for each kind; an
overlay is what its own values change in it: whole objects that are new, and JSON patches. tests/unit/deploy holds both
fresh.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).resolve().parents[1] / "deploy" / "k8s"
OVERLAYS = ("kind", "production")
MADE = "# Made by `make k8s-render` from deploy/k8s/chart; edit that.\n"
NAMESPACE = "neurogate"

Key = tuple[str, str]
"""Kind and name of an object."""


def rendered(helm: str, *values: Path) -> dict[Key, str]:
    """The chart's objects as text, comments included. Raises CalledProcessError when helm refuses the values."""
    files = [part for path in values for part in ("--values", str(path))]
    command = [helm, "template", "neurogate", str(K8S / "chart"), "--namespace", NAMESPACE]
    text = subprocess.run(
        [*command, "--kube-version", "1.37.0", "--set", "namespace.create=true", *files],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: dict[Key, str] = {}
    for each in re.split(r"^---\n", text, flags=re.MULTILINE):
        document = re.sub(r"^# Source: .*\n", "", each, flags=re.MULTILINE).strip("\n") + "\n"
        parsed = yaml.safe_load(document)
        if parsed is not None:
            found[parsed["kind"], parsed["metadata"]["name"]] = document
    return found


def patches(before: object, after: object, path: str = "") -> Iterator[dict[str, object]]:
    """The JSON patch (RFC 6902) that makes one of the other. Lists of the same length are compared item by item."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            inner = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
            if name not in after:
                yield {"op": "remove", "path": inner}
            elif name not in before:
                yield {"op": "add", "path": inner, "value": after[name]}
            else:
                yield from patches(before[name], after[name], inner)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from patches(one, other, f"{path}/{index}")
    elif before != after:
        yield {"op": "replace", "path": path, "value": after}


def files_of(objects: dict[Key, str]) -> dict[str, str]:
    """Objects by file: one for each kind."""
    files: dict[str, list[str]] = {}
    for (kind, _), text in objects.items():
        files.setdefault(f"{kind.lower()}.yaml", []).append(text)
    return {name: MADE + "---\n".join(texts) for name, texts in files.items()}


def base(objects: dict[Key, str]) -> dict[str, str]:
    """The files of the base."""
    files = files_of(objects)
    listed = "".join(f"  - {name}\n" for name in files)
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n"
    return {**files, "kustomization.yaml": MADE + head + listed}


def overlay(below: dict[Key, str], objects: dict[Key, str]) -> dict[str, str]:
    """The files of an overlay: what is new, and a patch for each object that differs."""
    files = files_of({key: text for key, text in objects.items() if key not in below})
    changes: list[dict[str, Any]] = []
    for (kind, name), text in below.items():
        target = {"kind": kind, "name": name}
        if (kind, name) not in objects:
            gone = {"$patch": "delete", "apiVersion": yaml.safe_load(text)["apiVersion"], "kind": kind}
            changes.append({"target": target, "patch": _dump({**gone, "metadata": {"name": name}})})
        elif steps := list(patches(yaml.safe_load(text), yaml.safe_load(objects[kind, name]))):
            changes.append({"target": target, "patch": _dump(steps)})
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../../base", *files],
        "patches": changes,
    }
    return {**files, "kustomization.yaml": MADE + _dump(kustomization)}


def everything(helm: str) -> dict[Path, str]:
    """Every made file, by its path below deploy/k8s."""
    below = rendered(helm)
    made = {Path("base", name): text for name, text in base(below).items()}
    for name in OVERLAYS:
        objects = rendered(helm, K8S / f"values-{name}.yaml")
        made |= {Path("overlays", name, file): text for file, text in overlay(below, objects).items()}
    return made


class _Dumper(yaml.SafeDumper):
    """YAML with texts of several lines as such, and with lists below their name."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002
        """Every list is indented."""
        super().increase_indent(flow, indentless=False)


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _dump(value: object) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120)


def main() -> int:
    """Write the files; those that are no longer made are removed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("helm", help="path of helm")
    parser.add_argument("--into", type=Path, default=K8S, help="directory to write base and overlays into")
    arguments = parser.parse_args()
    try:
        made = everything(arguments.helm)
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return 1
    for path, text in made.items():
        (arguments.into / path).parent.mkdir(parents=True, exist_ok=True)
        (arguments.into / path).write_text(text)
    for stale in [*arguments.into.glob("base/*.yaml"), *arguments.into.glob("overlays/*/*.yaml")]:
        if stale.relative_to(arguments.into) not in made:
            stale.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
