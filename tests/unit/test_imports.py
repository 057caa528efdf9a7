"""Importing a package without what it would import if it could."""

from __future__ import annotations

import subprocess
import sys

import pytest

from neurogate.imports import absent


def test_what_is_absent_cannot_be_imported_and_can_be_afterwards():
    with absent("pyclbr"), pytest.raises(ImportError):
        __import__("pyclbr")

    assert __import__("pyclbr").__name__ == "pyclbr"


def test_what_is_imported_already_stays():
    with absent("sys"):
        assert __import__("sys") is sys


def test_a_gateway_does_not_load_redis_unless_it_counts_there():
    program = "import sys, neurogate.gateway.app; sys.exit('redis' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
