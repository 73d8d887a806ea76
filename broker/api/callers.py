"""Who calls, and what each role may: authentication as middleware, roles as guards."""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.middleware.authentication import (
    AbstractAuthenticationMiddleware,
    AuthenticationResult,
)
from litestar.params import QueryParameter
from litestar.types import ASGIApp, Guard

from broker.api.parts import Parts
from broker.core.key_terms import Scope
from broker.errors import CallerUnknown, NotAllowed, UnknownField
from broker.flows.access import authenticate
from broker.flows.access.authenticate import Caller
from broker.flows.access.login import SESSION_COOKIE
from broker.store.access.accounts import Role

OPEN = "open_to_all"
"""`opt` of a route that needs no caller."""
CHANGING = "scope_to_change"
"""`opt` of a route or controller that changes something: the scope it takes, `money` if not said;
who may change may read there too."""

Connection = ASGIConnection[Any, Any, Any, Any]


class CallerMiddleware(AbstractAuthenticationMiddleware):
    """Puts the caller into `request.user`, from the key or, for reading, the session cookie."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        # OPTIONS too, for the guards of a route ask who calls.
        super().__init__(app, exclude_from_auth_key=OPEN, exclude_http_methods=())
        self.parts = parts

    async def authenticate_request(self, connection: Connection) -> AuthenticationResult:
        """Return the caller. Raises CallerUnknown."""
        return AuthenticationResult(user=await caller_of(connection, self.parts), auth=None)


async def caller_of(connection: Connection, parts: Parts) -> Caller:
    """Return who asks, by what is known now. Raises CallerUnknown."""
    engine, now = parts.engine, parts.clock()
    authorization = connection.headers.get("authorization")
    if authorization is not None:
        return await authenticate.by_key(engine, _bearer(authorization), now)
    cookie = connection.cookies.get(SESSION_COOKIE)
    # A cookie travels with what other sites send too, so it opens reading only.
    if cookie and connection.scope.get("method") in ("GET", "HEAD"):
        return await authenticate.by_session(engine, cookie, now)
    raise CallerUnknown(authenticate.KEY_MISSING)


def _bearer(authorization: str) -> str:
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise CallerUnknown("The Authorization header must be 'Bearer bk_...'.")
    return text.strip()


def allow(*roles: Role) -> Guard:
    """Return a guard that lets only these roles pass."""
    names = " or ".join(f"{role}s" for role in roles)

    def guard(connection: Connection, _: BaseRouteHandler) -> None:
        if connection.user.role not in roles:
            raise NotAllowed(
                f"Only {names} may do this; this key's role is {connection.user.role}."
            )

    return guard


OPERATORS = allow(Role.OPERATOR)
PROVIDERS = allow(Role.PROVIDER)
CONSUMERS = allow(Role.CONSUMER)
TRADERS = allow(Role.CONSUMER, Role.PROVIDER)


def require_scope(connection: Connection, handler: BaseRouteHandler) -> None:
    """A guard: reading takes a key of the scope `read`, changing one of the route's own scope."""
    if handler.opt.get(OPEN):
        return
    scope = Scope(handler.opt.get(CHANGING, Scope.MONEY))
    if connection.scope.get("method") in ("GET", "HEAD"):
        connection.user.require(Scope.READ, scope)
    else:
        connection.user.require(scope)


def refuse_unknown_query(connection: Connection, handler: BaseRouteHandler) -> None:
    """A guard against a misspelt query parameter, which would otherwise do nothing in silence."""
    signatures = [handler.parsed_fn_signature]
    signatures += [each.parsed_fn_signature for each in handler.resolve_dependencies().values()]
    fields = [field for each in signatures for field in each.parameters.items()]
    known = {
        field.kwarg_definition.name or name
        for name, field in fields
        if isinstance(field.kwarg_definition, QueryParameter)
    }
    unknown = [name for name in connection.query_params if name not in known]
    if unknown:
        raise UnknownField(
            f"Unknown query parameter: {', '.join(sorted(unknown))}.",
            facts={"fields": [{"field": name, "in": "query"} for name in sorted(unknown)]},
        )
