"""What became of one attempt at a provider: a closed set of kinds, each with what it means."""

from __future__ import annotations

import enum

import msgspec


class Fault(enum.StrEnum):
    """Why an attempt did not deliver. The provider's faults fail over; the caller's do not."""

    ADDRESS_REFUSED = "address_refused"
    """The name resolved to a network the operator does not allow."""
    CONNECT_FAILED = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    RESET = "reset"
    """The connection broke, or ended before the answer did."""
    MALFORMED = "malformed"
    """Not HTTP, not JSON, not SSE, wrong content type, or empty."""
    TOO_LARGE = "too_large"
    OVERLOADED = "overloaded"
    """429 or 503 from the provider."""
    SERVER_ERROR = "server_error"
    """408, 5xx, or an error object inside a 200."""
    CREDENTIAL = "credential"
    """401 or 403: the broker's credential at the provider is dead."""
    NOT_FOUND = "not_found"
    """404: the model has vanished from the provider."""
    CALLER_FAULT = "caller_fault"
    """400, 413, 422 and their like: another provider would say the same."""
    DOUBTED = "doubted"
    """The same, from an endpoint that says so of far more requests than its peers, or of images,
    which another may take."""
    CALLER_LEFT = "caller_left"
    NO_ROOM = "no_room"
    """The broker itself had no room: to look up its name, to connect, or to keep its answer."""
    DEADLINE = "deadline"
    """The call's own deadline passed, which is no mark against the provider."""


_UNBLAMED = frozenset({Fault.ADDRESS_REFUSED, Fault.DOUBTED, Fault.NO_ROOM})
_CALLERS_OWN = frozenset({Fault.CALLER_FAULT, Fault.CALLER_LEFT, Fault.DEADLINE})


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The end of one attempt: `fault` is None when the whole answer came."""

    fault: Fault | None = None
    status: int | None = None
    detail: str = ""
    retry_after_s: float | None = None
    sent: bool = True
    """False when no byte of the request can have reached the provider."""
    again: bool = False
    """An earlier attempt of the same call failed there as well: one call is one mark at most."""
    said: str = ""
    """The provider's own words, which may quote the prompt: for the caller alone, never kept."""

    @property
    def delivered(self) -> bool:
        """True when an answer came."""
        return self.fault is None

    @property
    def fails_over(self) -> bool:
        """True when another candidate may do better (before the commit point)."""
        return self.fault is not None and self.fault not in _CALLERS_OWN

    @property
    def counts_against_provider(self) -> bool:
        """True when the breaker and availability must hear of it as a failure."""
        return self.fails_over and self.fault not in _UNBLAMED and not self.again


DELIVERED = Outcome()


def fault_of_status(status: int) -> Fault | None:
    """Return what an HTTP status from a provider means, None for 2xx."""
    if 200 <= status < 300:
        return None
    if status in (429, 503):
        return Fault.OVERLOADED
    if status in (401, 402, 403):
        return Fault.CREDENTIAL
    if status in (404, 405):
        return Fault.NOT_FOUND
    if status == 408 or status >= 500 or status < 400:
        return Fault.SERVER_ERROR
    return Fault.CALLER_FAULT
