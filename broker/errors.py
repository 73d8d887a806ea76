"""Every error that users can meet, named as a sentence, with its HTTP status and code.

    BrokerError
    ├── RequestRefused                    the caller's request cannot be served as it stands
    │   ├── RequestMalformed (400) ── ParameterMalformed, ValueUnkeepable
    │   ├── UnknownField (400)
    │   ├── BodyTooSlow (408)
    │   ├── BodyTooLarge (413)            ├── ModelUnknown (404)
    │   ├── NothingFits (400|404|503)     ├── MethodNotServed (405)
    │   ├── NotFound (404)                ├── Conflict (409) ── AlreadyServed
    │   └── QuoteRefused (400|404|409|410)
    ├── CallerUnknown                     401: no key, a wrong key, a revoked or expired key
    ├── NotAllowed                        403: the key lacks the role, or may not ask for that
    │   └── ScopeMissing (403)
    ├── BalanceTooLow                     402: the hold does not fit the balance
    ├── BudgetTooLow                      402: the hold does not fit a budget of the key
    ├── TooManyCalls                      429: a limit, or all fit providers are full
    ├── ProviderFailed                    502: every attempt failed
    │   └── ProviderRefused               4xx passed on: the provider says that the request is wrong
    ├── DeadlinePassed                    504
    ├── Unavailable                       503: the database is away, or the broker is stopping
    │   └── HoldExpired                   the call outlived its hold: nothing was charged
    ├── SchemaUnfit                       the database is of another version than this one
    └── SettingInvalid                    a setting or command-line value is wrong

One place turns them into HTTP: `broker.gateway.refusals` for the data plane, `broker.api.problems`
for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from pricing.money import format_usd


class BrokerError(Exception):
    """The base: `status` and `code` go to the caller, `detail` is a sentence for people."""

    status = 500
    code = "internal_error"
    retryable = False
    """False adds `x-should-retry: false`, for a client library would retry into a second call."""

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.status = status or type(self).status
        self.retry_after_s = retry_after_s
        self.facts: Mapping[str, object] = facts or {}
        self.param: str | None = None
        """The parameter of the request that is meant, where one is."""
        self.call_id: str | None = None
        """Of the call that it ended, under which its story can be looked up."""


class RequestRefused(BrokerError):
    status = 400
    code = "request_refused"


class RequestMalformed(RequestRefused):
    code = "request_malformed"


class ParameterMalformed(RequestMalformed):
    def __init__(self, param: str, detail: str) -> None:
        super().__init__(detail)
        self.param = param


class ValueUnkeepable(RequestMalformed):
    code = "value_unkeepable"

    def __init__(self) -> None:
        super().__init__(
            "A value cannot be kept: a text with a NUL, a time outside the years 1 to 9999 (UTC), "
            "or a number that is too large."
        )


class UnknownField(RequestRefused):
    code = "unknown_field"


class BodyTooLarge(RequestRefused):
    status = 413
    code = "body_too_large"


class BodyTooSlow(RequestRefused):
    status = 408
    code = "body_too_slow"


class ModelUnknown(RequestRefused):
    status = 404
    code = "model_not_found"


class NothingFits(RequestRefused):
    """No endpoint passes the hard filters; `facts` say who was rejected and why."""

    status = 404
    code = "nothing_fits"


class MethodNotServed(RequestRefused):
    status = 405
    code = "method_not_allowed"

    def __init__(self, detail: str, *, allowed: str) -> None:
        super().__init__(detail)
        self.allowed = allowed


class NotFound(RequestRefused):
    """There is no such object, or it is another's: the answer is the same."""

    status = 404
    code = "not_found"


class Conflict(RequestRefused):
    status = 409
    code = "conflict"


class AlreadyServed(Conflict):
    """A call is sent again that was served and charged, and its answer cannot be told again."""

    code = "already_served"

    def __init__(
        self, call_id: UUID, charge_nanos: int, ended: str, why: str = "was not kept"
    ) -> None:
        cost_usd = format_usd(charge_nanos)
        super().__init__(
            f"This call was served before, as {call_id}, and cost {cost_usd} USD; "
            f"its answer {why}.",
            facts={"call_id": str(call_id), "cost_usd": cost_usd, "ended": ended},
        )
        self.call_id = str(call_id)


class QuoteRefused(RequestRefused):
    """The firm quote that a call names is unknown, used, expired, or for something else."""

    status = 409
    code = "quote_refused"


class CallerUnknown(BrokerError):
    status = 401
    code = "invalid_api_key"


class NotAllowed(BrokerError):
    status = 403
    code = "not_allowed"


class ScopeMissing(NotAllowed):
    """The key has scopes, and the one that this takes is not among them."""

    code = "scope_missing"

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"This key lacks the scope '{scope}', which this takes.", facts={"scope": str(scope)}
        )


class BalanceTooLow(BrokerError):
    status = 402
    code = "insufficient_balance"


class BudgetTooLow(BrokerError):
    """`budget_exceeded` for what is spent, `budget_held` where calls under way fill the rest."""

    status = 402
    code = "budget_exceeded"


class TooManyCalls(BrokerError):
    status = 429
    code = "too_many_calls"
    retryable = True


class ProviderFailed(BrokerError):
    status = 502
    code = "all_providers_failed"


class ProviderRefused(ProviderFailed):
    """The provider holds the request itself for wrong; its status and text are passed on."""

    status = 400
    code = "provider_refused"


class DeadlinePassed(BrokerError):
    status = 504
    code = "deadline_passed"


class Unavailable(BrokerError):
    status = 503
    code = "unavailable"
    retryable = True


class HoldExpired(Unavailable):
    code = "hold_expired"
    retryable = False


class SchemaUnfit(BrokerError):
    """The database is not at the revision that this version was written for."""

    status = 503
    code = "schema_unfit"


class SettingInvalid(BrokerError):
    status = 500
    code = "setting_invalid"
