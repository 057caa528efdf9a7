"""Names that nobody declared: what their author may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping

from neurogate.config.environment import is_service_link

PREFIX = "NEUROGATE_"
"""What the name of a variable begins with that belongs to nobody else."""


_SO_CLOSE = 0.9
"""How like one of ours a name without the prefix must be (API_KEY and API_KEYS: 0.93); most such names are others'."""


def meant(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest known name; empty when none is near."""
    near = nearest(name, known)
    return f" (did you mean {near}?)" if near else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The nearest known name; empty when none is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), "")


def unknown_variables(environ: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """A problem for each `NEUROGATE_*` variable that no setting of any process has."""
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and name not in known and value.strip() and not is_service_link(name, value):
            yield f"{name}: there is no such setting{meant(name, known)}"


def lookalikes(environ: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """A warning for each variable without the prefix that somebody may have taken for one of the settings."""
    plain = [name for name in known if not name.startswith(PREFIX)]
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) or name in known or not value.strip() or is_service_link(name, value):
            continue
        near = difflib.get_close_matches(name.upper(), plain, n=1, cutoff=_SO_CLOSE)
        if near:
            ours = f"{PREFIX}{name}" if f"{PREFIX}{name}" in known else near[0]
            yield f"{name}: is no setting and is not read (did you mean {ours}?)"
