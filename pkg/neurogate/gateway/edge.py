"""What stands between a request and the dispatcher, whichever listener it came by: key, model, quota, turn.

The order is the same for HTTP and gRPC: `arrive`, `identify`, `route`, `reserve`, `ticket`, then the dispatcher; at the
end the reservation is settled, the visit ended and `over` said, however the request ended. A step that nothing asks for
costs a comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from neurogate.edge.address_limits import AddressLimits, Visit
from neurogate.edge.admission import Admission, Ticket
from neurogate.edge.caller import Caller, Priority
from neurogate.edge.keys import KeyRing
from neurogate.edge.limiter import estimate
from neurogate.edge.limits import Limiter, Reservation
from neurogate.edge.line import Lane
from neurogate.edge.permissions import may_use, sees
from neurogate.edge.settings import LimitSettings
from neurogate.errors import BadRequestError, UnauthorizedError
from neurogate.gateway.model_names import ModelNames
from neurogate.gateway.response import CLIENT_GONE
from neurogate.inference import Usage

MODEL_CHARS_MAX = 256
"""Names are written into logs, errors and tables: a client must not make them long."""

_FOR_NOTHING = frozenset({CLIENT_GONE, 504})
"""Of a request that had its turn: an engine worked, and nobody had the answer in time."""

PROMPT_BYTES_MAX = 128 * 1024
"""A body's size says little about its tokens past this: it is an image."""


class Edge:
    """The edge of one gateway."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        addresses: AddressLimits,
        names: ModelNames,
        models: Callable[[], Container[str]],
        limits: LimitSettings,
        limiter: Limiter,
        admission: Admission,
    ) -> None:
        """`models` are the names that the fleet has now."""
        self._keys = keys
        self._addresses = addresses
        self._names = names
        self._models = models
        self.limiter = limiter
        self._admission = admission
        self._settings = limits

    def configure(self, limits: LimitSettings) -> None:
        """Take other limits from now on. Raises ConfigError, and keeps those it has."""
        self._addresses.reload(limits)
        self._settings = limits

    def address(self, peer: str, forwarded_for: bytes) -> str:
        """The client's address: the peer's, or what a trusted proxy says."""
        return self._addresses.client(peer, forwarded_for)

    def arrive(self, peer: str, forwarded_for: bytes) -> Visit | None:
        """Count a request of this address; None when addresses are not bounded. Raises RateLimitedError."""
        if not self._addresses.enabled:
            return None
        return self._addresses.visit(self._addresses.client(peer, forwarded_for))

    def identify(self, authorization: bytes, api_key: bytes, visit: Visit | None = None) -> Caller:
        """Who calls; `may_call` is the next question. Raises UnauthorizedError."""
        try:
            return self._keys.authenticate(authorization, api_key)
        except UnauthorizedError:
            if visit is not None:
                visit.failed()
            raise

    def route(self, caller: Caller, model: str) -> str:
        """The model that the request goes to.

        Raises BadRequestError for what is no name, and ForbiddenError when the key is good neither for the model nor
        for the alias that was asked for.
        """
        if len(model) > MODEL_CHARS_MAX:
            raise BadRequestError(f"model: must be at most {MODEL_CHARS_MAX} characters", param="model")
        found = self._names.resolve(model, self._models())
        if caller.models is not None and not (model and sees(caller, model)):
            may_use(caller, found)
        return found

    @property
    def immediate(self) -> bool:
        """Whether limits are known here, so that nobody need be asked and waited for."""
        return self.limiter.immediate

    def bounds(self, caller: Caller) -> bool:
        """Whether anything bounds the caller; when not, nothing is to be reserved."""
        return self.limiter.limits(caller)

    def estimate(self, prompt_bytes: int, max_tokens: int | None, answers: int) -> int:
        """Tokens to reserve for a request."""
        return estimate(min(prompt_bytes, PROMPT_BYTES_MAX), max_tokens, self._settings, answers=answers)

    async def reserve(
        self, caller: Caller, *, prompt_bytes: int, max_tokens: int | None, n: int, generates: bool
    ) -> Reservation | None:
        """Hold what the request may use; None when nothing bounds the caller. Raises RateLimitedError."""
        if not self.bounds(caller):
            return None
        return await self.limiter.reserve(caller, self.estimate(prompt_bytes, max_tokens, n * generates))

    def used(self, usage: Usage | None, *, prompt_bytes: int, chunks: int, left: bool, failed: bool) -> int | None:
        """Tokens to charge, as Reservation.settle takes them.

        What the engine counted; else about what the client got; of one that `left` a worker that was asked, the prompt,
        for what the engine did with it is not known. None when it `failed`, through no fault of its client.
        """
        if usage is not None:
            return usage.total_tokens
        if chunks or left:
            return estimate(min(prompt_bytes, PROMPT_BYTES_MAX), chunks, self._settings)
        return None if failed else 0

    def ticket(
        self,
        caller: Caller,
        lane: Lane,
        *,
        batch: bool = False,
        deadline: float,
        told: bool = False,
        max_tokens: int | None = None,
    ) -> Ticket | None:
        """A place in the queue; None when the request may go at once. `deadline` is its own, in loop time.

        `told` and `max_tokens` as Admission.queue takes them. Raises QueueFullError and QueueTooLongError.
        """
        if self._admission.free(lane):
            return None
        priority: Priority = "batch" if batch else caller.priority
        return self._admission.queue(
            lane, key_id=caller.key_id, priority=priority, deadline=deadline, told=told, max_tokens=max_tokens
        )

    def over(self, ticket: Ticket | None, status: int, *, broken: bool) -> None:
        """A request ended: whoever waits may have its room.

        `ticket` is what it waited with, if it did, `status` its status in metrics, and `broken` says that its answer
        began and did not end.
        """
        if ticket is not None and ticket.turn_at:
            if broken or status in _FOR_NOTHING:
                self._admission.wasted(ticket, client_left=status == CLIENT_GONE)
            elif status == 200:
                self._admission.answered(ticket)
        if not self._admission.idle:
            self._admission.wake()

    @property
    def keepalive_s(self) -> float:
        """Seconds between the signs of life that a waiting streamed request gets; 0 is none."""
        return self._admission.keepalive_s
