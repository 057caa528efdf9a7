"""What was compared, and what differed: for a person and for a program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Aspect = Literal[
    "answered", "status", "metadata", "count", "order", "bytes", "trailers", "deadline", "cancellation", "size",
    "cross-talk",
]  # fmt: skip

_SHOWN = 200
"""Characters of one thing that is shown in a finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference."""

    aspect: Aspect
    call: str
    detail: str


@dataclass(slots=True)
class Tally:
    """How often one aspect was looked at."""

    compared: int = 0
    failed: int = 0


@dataclass(slots=True)
class Report:
    """All of one verification."""

    direct: str
    proxy: str
    protocol: Literal["http", "grpc"]
    normalised: tuple[str, ...]
    """What was not compared as it came, and why."""
    tallies: dict[Aspect, Tally] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """What could not be compared, each with its reason."""

    @property
    def passed(self) -> bool:
        """Whether something was compared and nothing differed."""
        return not self.findings and any(tally.compared for tally in self.tallies.values())

    def compared(self, aspect: Aspect, call: str, detail: str = "") -> None:
        """One aspect of one call; `detail` says what differs, empty when nothing does."""
        tally = self.tallies.setdefault(aspect, Tally())
        tally.compared += 1
        if detail:
            tally.failed += 1
            self.findings.append(Finding(aspect, call, detail))

    def as_json(self) -> dict[str, object]:
        """For a program."""
        return {
            "passed": self.passed,
            "protocol": self.protocol,
            "direct": self.direct,
            "proxy": self.proxy,
            "aspects": {
                aspect: {"compared": tally.compared, "failed": tally.failed} for aspect, tally in self.tallies.items()
            },
            "findings": [
                {"aspect": finding.aspect, "call": finding.call, "detail": finding.detail} for finding in self.findings
            ],
            "skipped": self.skipped,
            "normalised": list(self.normalised),
        }

    def as_text(self) -> str:
        """For a person."""
        lines = [f"{self.protocol}: {self.direct} directly, {self.proxy} as the proxy", ""]
        lines.append(f"{'':14}{'compared':>9}{'failed':>9}")
        lines += [f"{name:14}{tally.compared:>9}{tally.failed:>9}" for name, tally in self.tallies.items()]
        if self.findings:
            lines += ["", "differences:"]
            lines += [f"  {finding.aspect}: {finding.call}: {finding.detail}" for finding in self.findings]
        if self.skipped:
            lines += ["", "not compared:", *(f"  {reason}" for reason in self.skipped)]
        lines += ["", "normalised before comparing:", *(f"  {what}" for what in self.normalised)]
        lines += ["", "passed" if self.passed else "FAILED"]
        return "\n".join(lines) + "\n"


def excerpt(data: object) -> str:
    """Something that differs, as it is shown."""
    text = repr(data)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
