"""Compiles the hot path with mypyc: a hook of the wheel's build, off unless asked for (ADR 0030).

HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 turns it on, for `pip install` and `pip wheel` alike; pyproject.toml lists the modules.
Each becomes an extension beside its source, and Python prefers the extension.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = Path("pkg")
_LIBRARY = "neurogate_compiled"
"""The code of all modules lies in one library, so that calls between them are calls of C."""
_MYPY = (
    "--config-file=",
    "--no-site-packages",
    "--ignore-missing-imports",
    "--follow-imports=silent",
    "--explicit-package-bases",
    "--namespace-packages",
)
"""`make lint` has checked the types. Those of other packages are left out: so a wheel is the same wherever it is built.

Besides, compiled code checks what it is given, and some packages say of what may be None that it never is.
"""


class CompiledHotPath(BuildHookInterface[Any]):
    """Puts the extensions into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile. An editable installation stays as it is: a change of a source would not be seen there."""
        if version == "editable":
            return
        modules = [name.replace(".", "/") + ".py" for name in self.config["modules"]]
        self._made = tempfile.TemporaryDirectory(prefix="neurogate-compiled-")
        made = Path(self._made.name)
        for extension in compiled(Path(self.root) / PACKAGES, modules, made):
            build_data["force_include"][str(extension)] = extension.relative_to(made / "extensions").as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is in the wheel now."""
        del build_data, artifact_path
        if version != "editable":
            self._made.cleanup()


def compiled(packages: Path, modules: list[str], made: Path) -> list[Path]:
    """The extensions of so many modules, below `made / "extensions"`."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    with contextlib.chdir(packages):
        extensions = mypycify(
            [*_MYPY, f"--cache-dir={made / 'types'}", *modules],
            opt_level="2",
            debug_level="0",
            multi_file=True,
            target_dir=str(made / "c"),
            group_name=_LIBRARY,
        )
        command = Distribution({"name": _LIBRARY, "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib = str(made / "extensions")
        command.build_temp = str(made / "objects")
        command.ensure_finalized()
        command.run()
    return sorted((made / "extensions").rglob("*.so"))
