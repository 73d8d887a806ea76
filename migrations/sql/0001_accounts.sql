-- Who takes part, and how they prove it.

CREATE TABLE accounts (
    id          uuid PRIMARY KEY,
    role        text NOT NULL CHECK (role IN ('consumer', 'provider', 'operator')),
    name        text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]+([._-][a-z0-9]+)*$' AND length(name) <= 63),
    created_at  timestamptz NOT NULL,
    closed_at   timestamptz
);

CREATE TABLE keys (
    id              text PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    secret_sha256   bytea NOT NULL CHECK (length(secret_sha256) = 32),
    label           text NOT NULL DEFAULT '',
    content_kept    text NOT NULL DEFAULT 'none' CHECK (content_kept IN ('none', 'replay', 'full')),
    calls_max       integer CHECK (calls_max > 0),
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz,
    revoked_at      timestamptz
);
CREATE INDEX keys_of_account ON keys (account_id);

CREATE TABLE login_links (
    token_sha256    bytea PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    used_at         timestamptz
);

CREATE TABLE console_sessions (
    token_sha256    bytea PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    csrf_token      text NOT NULL,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL
);

-- A unique key must hold across partitions, so this table has none; a Celery task deletes what has expired.
CREATE TABLE idempotency_keys (
    account_id      uuid NOT NULL REFERENCES accounts,
    key             text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_sha256  bytea NOT NULL,
    status          smallint NOT NULL,
    answer          bytea NOT NULL,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (account_id, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

CREATE TABLE audit_log (
    id          uuid PRIMARY KEY,
    at          timestamptz NOT NULL,
    author      text NOT NULL,
    action      text NOT NULL,
    object      text NOT NULL,
    detail      jsonb NOT NULL DEFAULT '{}'
);
