"""Foreign errors of sockets, names, TLS and parsers become `Outcome`s in this one place."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

import httptools
import msgspec

from broker.core.outcome import Fault, Outcome

_OUR_OWN: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EBUSY})
"""What this machine has no more of, which is no provider's fault; a resolver that had no file to
ask by is busy."""
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What the parser of JSON raises for what is none; the last for what is nested too deeply."""


class AttemptFailed(Exception):
    """The attempt did not deliver; `outcome` says why and whether anything was sent."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.fault}: {outcome.detail}")
        self.outcome = outcome


def malformed(detail: str, status: int | None = None) -> AttemptFailed:
    """Return the failure of an answer that is not what its protocol says it must be."""
    return AttemptFailed(Outcome(Fault.MALFORMED, status=status, detail=detail))


def of_connect_error(error: Exception) -> Outcome:
    """Return what it means that no connection came about: nothing was sent."""
    if isinstance(error, AttemptFailed):
        return error.outcome
    if isinstance(error, ssl.SSLCertVerificationError):
        detail = f"certificate refused: {error.verify_message}"
    elif isinstance(error, socket.gaierror):
        detail = f"name not resolved: {error.strerror}"
    elif isinstance(error, TimeoutError):
        return Outcome(Fault.CONNECT_TIMEOUT, detail="no connection in time", sent=False)
    elif isinstance(error, OSError):
        detail = error.strerror or type(error).__name__
        if error.errno in _OUR_OWN:
            return Outcome(Fault.NO_ROOM, detail=detail, sent=False)
    else:
        detail = f"{type(error).__name__}: {error}"
    return Outcome(Fault.CONNECT_FAILED, detail=detail, sent=False)


def of_lost_connection(error: Exception | None, status: int) -> Outcome:
    """Return what it means that a connection ended with its answer outstanding."""
    when = "in mid-answer" if status else "before an answer"
    cause = "closed by the provider" if error is None else type(error).__name__
    return Outcome(Fault.RESET, status=status or None, detail=f"{cause} {when}")


def of_parser_error(error: Exception, status: int, head_limit_bytes: int) -> Outcome:
    """Return what it means that the parser, or who it told, refused the bytes."""
    cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
    if isinstance(cause, OverflowError):
        return of_long_head(status, head_limit_bytes)
    detail = f"not HTTP/1.1: {cause or error}"
    return Outcome(Fault.MALFORMED, status=status or None, detail=detail)


def of_long_head(status: int, head_limit_bytes: int) -> Outcome:
    """Return what it means that a head, or what came between the bytes of a body, is too much."""
    detail = f"the head is over {head_limit_bytes} bytes, or has too many headers"
    return Outcome(Fault.TOO_LARGE, status=status or None, detail=detail)
