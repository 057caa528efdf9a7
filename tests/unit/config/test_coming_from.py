"""docs/coming-from.md names settings that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from neurogate.cli.reference import markdown

DOCS = Path(__file__).parents[3] / "docs"
_NAME = re.compile(r"`([A-Z][A-Z0-9_]+)(?:=[^`]*)?`")


def rows() -> Iterator[list[str]]:
    for line in (DOCS / "coming-from.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| there"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row[0])
def test_the_setting_that_a_row_names_is_one_of_ours(row: list[str]) -> None:
    assert len(row) == 4
    ours = set(_NAME.findall(row[1]))
    assert ours <= set(_NAME.findall(markdown()))
