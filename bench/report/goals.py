"""What NeuroGate wants to be, next to others, in one run; and whether it was."""

from __future__ import annotations

from dataclasses import dataclass

from report.book import Book, Spread
from workloads import CLOSED, CROWD, MANY, OPEN, SOME

OWN = "neurogate"
"""The variant with keys, limits, metrics and access log."""


@dataclass(frozen=True)
class Goal:
    """A ratio that must not be larger."""

    title: str
    workload: str
    field: str
    against: str
    bound: float
    peer_field: str = ""
    """The other one's, where it is another."""
    added: bool = False
    """Whether what the engine takes by itself is taken off both."""

    def found(self, book: Book) -> Spread | None:
        """The ratio in a run, or None when it was not measured."""
        if self.added:
            return book.added_ratio(self.workload, OWN, self.field, self.against)
        return book.ratio(self.workload, OWN, self.field, self.against, self.peer_field or None)


_TOKEN = "gateway CPU per streamed token, 400 streams at 50 token/s"
_REQUEST = "gateway CPU per unstreamed request, 64 connections"
_EVEN = "the same at 1000 requests/s offered to each"

GOALS = (
    *(Goal(_TOKEN, MANY.name, "gateway_us", peer, bound) for peer, bound in (("nginx", 1.0), ("envoy", 0.7))),
    *(Goal(_TOKEN, MANY.name, "gateway_us", peer, 0.7) for peer in ("vllm-router", "sglang-router")),
    Goal("gateway and worker CPU per streamed token", MANY.name, "together_us", "vllm-router", 2.0),
    *(
        Goal(title, workload.name, "gateway_us", peer, bound)
        for title, workload in ((_REQUEST, CLOSED), (_EVEN, OPEN))
        for peer, bound in (("vllm-router", 1.2), ("sglang-router", 1.0), ("litellm", 0.01))
    ),
    Goal(
        "added time to first token, median, 100 streams",
        SOME.name,
        "first_token_p50_us",
        "vllm-router",
        1.0,
        added=True,
    ),
    Goal("time to first token, p99, 100 streams", SOME.name, "first_token_p99_us", "vllm-router", 1.5),
    Goal("what is added to a gap between tokens, p99, 400 streams", MANY.name, "gap_added_p99_us", "envoy", 1.2),
    Goal("peak resident memory of the gateway, 1000 streams", CROWD.name, "gateway_peak_mib", "vllm-router", 1.0),
)

PICK_BOUND = 1.5
"""Cost of a pick among 10 000 workers, over one among 10."""
