"""What is found about a configuration by trying it out: everything at once, not only what comes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from neurogate.errors import ConfigError

ResultT = TypeVar("ResultT")


class Findings:
    """What is wrong, and what its author may not have meant."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        """Why a process would not start."""
        self.warnings: list[str] = []
        """It would start, and may not do what is wanted."""

    def attempt(self, check: Callable[[], ResultT]) -> ResultT | None:
        """What the check gives; None when it raises ConfigError, which is a problem."""
        try:
            return check()
        except ConfigError as error:
            self.problems += str(error).splitlines()
            return None
