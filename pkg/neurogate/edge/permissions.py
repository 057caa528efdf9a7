"""What a caller may ask for: the paths and models that its key is bound to.

A name allows itself; one that ends in `*` allows whatever begins like it.
"""

from __future__ import annotations

from neurogate.edge.caller import Caller
from neurogate.errors import ForbiddenError

_SHOWN_CHARS = 100


def may_call(caller: Caller, path: str) -> None:
    """Raises ForbiddenError unless the key is good for the path."""
    if caller.routes is not None and not _allowed(caller.routes, path):
        raise ForbiddenError(f"the key {caller.key_id} may not call {path[:_SHOWN_CHARS]}")


def may_use(caller: Caller, model: str) -> None:
    """Raises ForbiddenError unless the key is good for the model; a key bound to models must name one."""
    if sees(caller, model):
        return
    names = ", ".join(sorted(caller.models or ()))
    asked = f"may not use the model {model[:_SHOWN_CHARS]!r}" if model else "must name a model"
    raise ForbiddenError(f"the key {caller.key_id} {asked}; it may use {names}", param="model")


def sees(caller: Caller, model: str) -> bool:
    """Whether a list of models shows this one to the caller."""
    return caller.models is None or _allowed(caller.models, model)


def _allowed(names: frozenset[str], asked: str) -> bool:
    return asked in names or any(name.endswith("*") and asked.startswith(name[:-1]) for name in names)
