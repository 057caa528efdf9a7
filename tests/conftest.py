"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from neurogate.engines.settings import DEFAULT_MODEL
from neurogate.models.progress import shown
from neurogate.models.store import resolve


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts processes comes first: the longest files are there, and one that begins last is waited for alone."""
    items.sort(key=lambda item: item.path.parent.name != "integration")


@pytest.fixture(scope="session")
def smollm2_path(pytestconfig: pytest.Config) -> Path:
    """The default model's file, fetched into the shared cache when it is missing."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), shown(Console(stderr=True)) as progress:
        return resolve(DEFAULT_MODEL, progress=progress).path
