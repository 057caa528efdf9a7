"""The modules that may be compiled (ADR 0030) have nothing in them that the compiler gets wrong."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"][
    "custom"
]
MODULES: list[str] = HOOK["modules"]


def wrong(source: str) -> list[str]:
    """What of a module must stay interpreted, each with its line."""
    tree = ast.parse(source)
    return sorted({*_waits(tree, handling=False), *_classes(tree), *_names(tree), *_handlers(tree)})


def _waits(node: ast.AST, *, handling: bool) -> Iterator[str]:
    """Waits within a handler: compiled, the exception stays the thread's while others run, or rises where none did."""
    match node:
        case ast.AsyncWith() | ast.AsyncFor():
            yield f"{node.lineno}: {type(node).__name__} waits in a handler"
        case ast.TryStar():
            yield f"{node.lineno}: except* cannot be compiled"
        case ast.Await() | ast.Yield() | ast.YieldFrom() if handling:
            yield f"{node.lineno}: {type(node).__name__} in a handler"
    for field, value in ast.iter_fields(node):
        within = handling or (isinstance(node, ast.Try) and field in {"handlers", "finalbody"})
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from _waits(child, handling=within and not function)


def _classes(tree: ast.AST) -> Iterator[str]:
    """Bases that the compiler does not know: structs, and whatever else comes of packages whose types are left out."""
    foreign: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                foreign |= {(name.asname or name.name).partition(".")[0] for name in names if _foreign(name.name)}
            case ast.ImportFrom(module=str(module), names=names) if _foreign(module):
                foreign |= {name.asname or name.name for name in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            if any(base.partition(".")[0] in foreign for base in bases):
                yield f"{node.lineno}: another package's class is a base"


def _foreign(module: str) -> bool:
    top = module.partition(".")[0]
    return top != "neurogate" and top not in sys.stdlib_module_names


def _names(tree: ast.AST) -> Iterator[str]:
    """Attributes become fields of C structs, with another underscore before them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "_thread":
            yield f"{node.lineno}: {node.attr} would be a word of C"


def _handlers(tree: ast.AST) -> Iterator[str]:
    """A name has one type: a second handler's exception that is of another one raises a TypeError in its place."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            types: dict[str, str] = {}
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
                    caught = ast.unparse(node.type)
                    if types.setdefault(node.name, caught) != caught:
                        yield f"{node.lineno}: {node.name} is the name of another exception, too"


@pytest.mark.parametrize("module", MODULES)
def test_a_compiled_module_has_nothing_that_the_compiler_gets_wrong(module):
    assert wrong((ROOT / "pkg" / (module.replace(".", "/") + ".py")).read_text()) == []


def test_the_list_is_in_order():
    assert sorted(set(MODULES)) == MODULES


def test_the_compiler_is_the_one_that_the_lock_names():
    """Its mistakes are those that were looked for."""
    (required,) = [name for name in HOOK["dependencies"] if name.startswith("mypy")]
    locked = re.search(r"^(mypy==[0-9.]+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert required == locked[1]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("async def f():\n try:\n  await g()\n finally:\n  h()", []),
        ("async def f():\n try:\n  await g()\n finally:\n  await h()", ["5: Await in a handler"]),
        ("async def f():\n try:\n  h()\n except E:\n  await g()", ["5: Await in a handler"]),
        ("def f():\n try:\n  h()\n except E:\n  yield", ["5: Yield in a handler"]),
        ("def f():\n try:\n  h()\n except E:\n  async def g():\n   await h()", []),
        ("async def f():\n async with g():\n  pass", ["2: AsyncWith waits in a handler"]),
        ("async def f():\n async for _ in g():\n  pass", ["2: AsyncFor waits in a handler"]),
        ("def f():\n try:\n  h()\n except* E:\n  pass", ["2: except* cannot be compiled"]),
        ("import msgspec\nclass A(msgspec.Struct, frozen=True):\n pass", ["2: another package's class is a base"]),
        ("from a.b import C as D\nclass A(D):\n pass", ["2: another package's class is a base"]),
        ("import asyncio\nclass A(asyncio.Protocol):\n pass", []),
        (
            "def f():\n try:\n  h()\n except A as e:\n  pass\n except B as e:\n  pass",
            ["6: e is the name of another exception, too"],
        ),
        ("def f():\n try:\n  h()\n except A as e:\n  pass\n except B as b:\n  pass", []),
        ("self._thread = 1", ["1: _thread would be a word of C"]),
    ],
)
def test_what_is_looked_for_is_found(source, found):
    assert wrong(source) == found
