-- The books. Immutable records (holds, settlements with their lines, transfers) and, kept in the same transaction,
-- the balances that they fold to. Amounts are nano-dollars. `world` is everything outside: a top-up moves money from
-- it to a consumer's funds, a payout from a provider's earnings back to it.

CREATE TABLE ledger_accounts (
    id          uuid PRIMARY KEY,
    owner_id    uuid REFERENCES accounts,
    kind        text NOT NULL CHECK (kind IN ('funds', 'earnings', 'take', 'world')),
    shard       smallint NOT NULL DEFAULT 0,
    currency    text NOT NULL DEFAULT 'USD' CHECK (currency = 'USD'),
    created_at  timestamptz NOT NULL,
    UNIQUE NULLS NOT DISTINCT (owner_id, kind, shard, currency),
    CHECK ((owner_id IS NULL) = (kind IN ('take', 'world')))
);

CREATE TABLE balances (
    ledger_account_id   uuid PRIMARY KEY REFERENCES ledger_accounts,
    posted_nanos        bigint NOT NULL DEFAULT 0,
    held_nanos          bigint NOT NULL DEFAULT 0 CHECK (held_nanos >= 0),
    may_overdraw        boolean NOT NULL DEFAULT false,
    CONSTRAINT no_overdraft CHECK (may_overdraw OR posted_nanos - held_nanos >= 0)
) WITH (fillfactor = 50);

CREATE TABLE holds (
    call_id             uuid NOT NULL,
    ledger_account_id   uuid NOT NULL,
    key_id              text NOT NULL,
    amount_nanos        bigint NOT NULL CHECK (amount_nanos > 0),
    created_at          timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL,
    PRIMARY KEY (call_id, created_at)
) PARTITION BY RANGE (created_at);

-- The gate: whoever deletes the row settles the call, so a call is settled once.
-- No foreign key on the account: the statement that opens a hold has just locked its row of balances, and a key's own
-- look-up would write to the account for every call.
CREATE TABLE open_holds (
    call_id             uuid PRIMARY KEY,
    ledger_account_id   uuid NOT NULL,
    process_id          integer NOT NULL,
    amount_nanos        bigint NOT NULL CHECK (amount_nanos > 0),
    created_at          timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX open_holds_expiry ON open_holds (expires_at);
CREATE INDEX open_holds_process ON open_holds (process_id);

-- Brokers that hold a lease. `suspected_at` is when a sweep first found the lease free; the owner clears it.
CREATE TABLE broker_processes (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at      timestamptz NOT NULL,
    suspected_at    timestamptz
);

CREATE TABLE settlements (
    call_id             uuid NOT NULL,
    ledger_account_id   uuid NOT NULL,
    kind                text NOT NULL CHECK (kind IN ('captured', 'released', 'expired')),
    hold_nanos          bigint NOT NULL,
    charge_nanos        bigint NOT NULL CHECK (charge_nanos BETWEEN 0 AND hold_nanos),
    held_at             timestamptz NOT NULL,
    settled_at          timestamptz NOT NULL,
    PRIMARY KEY (call_id, settled_at),
    CHECK ((kind = 'captured') = (charge_nanos > 0))
) PARTITION BY RANGE (settled_at);

CREATE TABLE settlement_lines (
    call_id             uuid NOT NULL,
    attempt             smallint NOT NULL,
    settled_at          timestamptz NOT NULL,
    endpoint_id         uuid NOT NULL,
    payer_id            uuid NOT NULL,
    payee_id            uuid NOT NULL,
    take_id             uuid NOT NULL,
    tokens_in           bigint NOT NULL CHECK (tokens_in >= 0),
    tokens_out          bigint NOT NULL CHECK (tokens_out >= 0),
    rate_in_micros      bigint NOT NULL,
    rate_out_micros     bigint NOT NULL,
    rate_call_nanos     bigint NOT NULL,
    price_version       bigint NOT NULL,
    charge_nanos        bigint NOT NULL CHECK (charge_nanos > 0),
    take_nanos          bigint NOT NULL CHECK (take_nanos >= 0),
    earnings_nanos      bigint NOT NULL CHECK (earnings_nanos >= 0),
    PRIMARY KEY (call_id, attempt, settled_at),
    CHECK (charge_nanos = take_nanos + earnings_nanos)
) PARTITION BY RANGE (settled_at);

CREATE TABLE transfers (
    id              uuid PRIMARY KEY,
    debit_id        uuid NOT NULL REFERENCES ledger_accounts,
    credit_id       uuid NOT NULL REFERENCES ledger_accounts,
    amount_nanos    bigint NOT NULL CHECK (amount_nanos > 0),
    kind            text NOT NULL CHECK (kind IN ('topup', 'adjustment', 'payout')),
    reason          text NOT NULL DEFAULT '',
    author          text NOT NULL,
    created_at      timestamptz NOT NULL,
    CHECK (debit_id <> credit_id)
);
CREATE INDEX transfers_at ON transfers (created_at);

-- Balances sealed at a moment; checks fold only what came after the last seal.
CREATE TABLE seal_periods (
    sealed_before   timestamptz PRIMARY KEY,
    created_at      timestamptz NOT NULL
);
CREATE TABLE seals (
    ledger_account_id   uuid NOT NULL REFERENCES ledger_accounts,
    sealed_before       timestamptz NOT NULL REFERENCES seal_periods,
    posted_nanos        bigint NOT NULL,
    PRIMARY KEY (ledger_account_id, sealed_before)
);

CREATE VIEW ledger_entries AS
    SELECT payer_id AS ledger_account_id, -charge_nanos AS amount_nanos, settled_at AS at, call_id AS source
      FROM settlement_lines
    UNION ALL SELECT payee_id, earnings_nanos, settled_at, call_id FROM settlement_lines
    UNION ALL SELECT take_id, take_nanos, settled_at, call_id FROM settlement_lines
    UNION ALL SELECT debit_id, -amount_nanos, created_at, id FROM transfers
    UNION ALL SELECT credit_id, amount_nanos, created_at, id FROM transfers;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is an immutable record: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;

INSERT INTO ledger_accounts (id, kind, shard, created_at)
    SELECT uuidv7(), 'take', shard, now() FROM generate_series(0, 15) AS shard;
INSERT INTO ledger_accounts (id, kind, shard, created_at) VALUES (uuidv7(), 'world', 0, now());
INSERT INTO balances (ledger_account_id, may_overdraw) SELECT id, kind = 'world' FROM ledger_accounts;
