"""The columns of tables, for SQLAlchemy Core; `migrations/sql` alone makes the tables."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    any_,
    literal,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

metadata = MetaData()

_KINDS: dict[str, TypeEngine[Any]] = {
    "uuid": Uuid(),
    "uuid[]": ARRAY(Uuid()),
    "text": Text(),
    "text[]": ARRAY(Text()),
    "bytea": LargeBinary(),
    "date": Date(),
    "timestamptz": DateTime(timezone=True),
    "smallint": SmallInteger(),
    "integer": Integer(),
    "bigint": BigInteger(),
    "boolean": Boolean(),
    "real": REAL(),
    "double": Double(),
    "jsonb": JSONB(none_as_null=True),
}


def table(name: str, columns: str) -> Table:
    """A table of columns written `name type, ...`; defaults are left to the database."""
    words = (column.split() for column in columns.split(","))
    return Table(name, metadata, *(Column(key, _KINDS[kind]) for key, kind in words))


def among(column: ColumnElement[int], numbers: Collection[int]) -> ColumnElement[bool]:
    """True where a number is one of these, however many they are: with IN each is an argument of
    its own, and a statement takes 32,767."""
    return column == any_(literal(list(numbers), ARRAY(Integer)))


# Who takes part.
accounts = table(
    "accounts",
    """
    id uuid, role text, name text, created_at timestamptz, closed_at timestamptz
    """,
)
keys = table(
    "keys",
    """
    id text, account_id uuid, secret_sha256 bytea, label text, content_kept text, explore boolean,
    calls_max integer, created_at timestamptz, expires_at timestamptz, revoked_at timestamptz,
    scopes text[], requests_per_minute integer, tokens_per_minute bigint, models text[],
    providers text[], domains text[], former_sha256 bytea, former_until timestamptz
    """,
)
login_links = table(
    "login_links",
    """
    token_sha256 bytea, account_id uuid, created_at timestamptz, expires_at timestamptz,
    used_at timestamptz
    """,
)
console_sessions = table(
    "console_sessions",
    """
    token_sha256 bytea, account_id uuid, csrf_token text, created_at timestamptz,
    expires_at timestamptz, key_id text
    """,
)
idempotency_keys = table(
    "idempotency_keys",
    """
    account_id uuid, key text, request_sha256 bytea, status smallint, answer bytea, sealed boolean,
    call_id uuid, process_id integer, free_at timestamptz, created_at timestamptz,
    expires_at timestamptz, key_id text
    """,
)
audit_log = table(
    "audit_log",
    """
    id uuid, at timestamptz, author text, action text, object text, detail jsonb
    """,
)

# What providers offer.
deployments = table(
    "deployments",
    """
    id uuid, number integer, provider_id uuid, name text, url text, kind text,
    capacity integer, region text, retains_data boolean, trains_on_data boolean,
    retention_days integer, proof text, nonce text, credential_sealed bytea,
    signing_key_sealed bytea, status text, reports jsonb, approved_by text,
    created_at timestamptz, updated_at timestamptz
    """,
)
endpoints = table(
    "endpoints",
    """
    id uuid, number integer, deployment_id uuid, provider_id uuid, name text, model text,
    version text, upstream_model text, tasks text[], context_length_tokens integer,
    max_output_tokens integer, tokenizer_json text, created_at timestamptz,
    retired_at timestamptz
    """,
)
offers = table(
    "offers",
    """
    endpoint_id uuid, valid_from timestamptz, valid_to timestamptz, domains jsonb,
    quality double, visible_to uuid[], take_bps integer, floor_in_micros bigint,
    list_in_micros bigint, ceiling_in_micros bigint, floor_out_micros bigint,
    list_out_micros bigint, ceiling_out_micros bigint, floor_call_nanos bigint,
    list_call_nanos bigint, ceiling_call_nanos bigint, promised_ttft_ms integer,
    promised_latency_ms integer, tiers jsonb
    """,
)
price_books = table(
    "price_books",
    """
    version bigint, at timestamptz, controller text
    """,
)
price_changes = table(
    "price_changes",
    """
    endpoint_number integer, version bigint, at timestamptz, rate_in_micros bigint,
    rate_out_micros bigint, rate_call_nanos bigint, load real
    """,
)

# The books.
ledger_accounts = table(
    "ledger_accounts",
    """
    id uuid, owner_id uuid, kind text, shard smallint, currency text, created_at timestamptz
    """,
)
balances = table(
    "balances",
    """
    ledger_account_id uuid, posted_nanos bigint, held_nanos bigint, may_overdraw boolean
    """,
)
holds = table(
    "holds",
    """
    call_id uuid, ledger_account_id uuid, key_id text, amount_nanos bigint,
    created_at timestamptz, expires_at timestamptz
    """,
)
open_holds = table(
    "open_holds",
    """
    call_id uuid, ledger_account_id uuid, amount_nanos bigint, created_at timestamptz,
    expires_at timestamptz
    """,
)
settlements = table(
    "settlements",
    """
    call_id uuid, ledger_account_id uuid, kind text, hold_nanos bigint, charge_nanos bigint,
    held_at timestamptz, settled_at timestamptz
    """,
)
settlement_lines = table(
    "settlement_lines",
    """
    call_id uuid, attempt smallint, settled_at timestamptz, endpoint_id uuid, payer_id uuid,
    payee_id uuid, take_id uuid, tokens_in bigint, tokens_out bigint, rate_in_micros bigint,
    rate_out_micros bigint, rate_call_nanos bigint, price_version bigint, charge_nanos bigint,
    take_nanos bigint, earnings_nanos bigint
    """,
)
transfers = table(
    "transfers",
    """
    id uuid, debit_id uuid, credit_id uuid, amount_nanos bigint, kind text, reason text,
    author text, created_at timestamptz, call_id uuid, about_id uuid
    """,
)

# What was asked.
calls = table(
    "calls",
    """
    id uuid, created_at timestamptz, account_id uuid, key_id text, task text, model text,
    domain text, stream boolean, status smallint, code text, endpoint_number integer,
    price_version bigint, hold_nanos bigint, charge_nanos bigint, tokens_in bigint,
    tokens_out bigint, ttft_ms real, duration_ms real, task_label text, session_id text,
    labels jsonb, story bytea, answer_tokens_out bigint
    """,
)
