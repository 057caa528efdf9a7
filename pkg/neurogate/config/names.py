"""Names that nobody declared: what their author may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping

from neurogate.config.environment import is_service_link

PREFIX = "NEUROGATE_"
"""What the name of a variable begins with that belongs to nobody else."""


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
