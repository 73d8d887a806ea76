-- Signed receipts of usage and the cases that they open; what the ledger's monitor found last; replays of everything.
-- All tables are new and empty, nothing here rewrites, scans or locks a big one.

-- The public half of the key that a deployment's agent signs receipts with; the private half never leaves the agent.
-- `claim_json` is what the agent signed to show that it has the private half; `endorsement` is the former key's signature
-- of the same text. A former key stays, for what it has signed is proved by it.
CREATE TABLE receipt_keys (
    id              text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{32}$'),
    deployment_id   uuid NOT NULL REFERENCES deployments,
    public_key      bytea NOT NULL CHECK (length(public_key) = 32),
    claim_json      text NOT NULL,
    signature       bytea NOT NULL CHECK (length(signature) = 64),
    endorsed_by     text REFERENCES receipt_keys,
    endorsement     bytea CHECK (length(endorsement) = 64),
    registered_at   timestamptz NOT NULL,
    retired_at      timestamptz CHECK (retired_at >= registered_at),
    CHECK ((endorsed_by IS NULL) = (endorsement IS NULL))
);
CREATE UNIQUE INDEX receipt_keys_in_force ON receipt_keys (deployment_id) WHERE retired_at IS NULL;
CREATE INDEX receipt_keys_of_deployment ON receipt_keys (deployment_id, registered_at);

-- What a deployment's agent says that it served, as it was signed. `call_at` is the time in the call's id, so that the
-- primary key holds across the partitions: one receipt for each attempt of a call at a deployment.
CREATE TABLE receipts (
    call_id         uuid NOT NULL,
    attempt         smallint NOT NULL CHECK (attempt >= 0),
    deployment_id   uuid NOT NULL,
    call_at         timestamptz NOT NULL CHECK (call_at = uuid_extract_timestamp(call_id)),
    key_id          text NOT NULL,
    sequence        bigint NOT NULL CHECK (sequence > 0),
    model           text NOT NULL,
    status          smallint,
    whole           boolean NOT NULL,
    tokens_in       bigint CHECK (tokens_in >= 0),
    tokens_out      bigint CHECK (tokens_out >= 0),
    bytes_in        bigint NOT NULL CHECK (bytes_in >= 0),
    bytes_out       bigint NOT NULL CHECK (bytes_out >= 0),
    started_at      timestamptz NOT NULL,
    first_byte_at   timestamptz,
    ended_at        timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    receipt_json    text NOT NULL,
    signature       bytea NOT NULL CHECK (length(signature) = 64),
    PRIMARY KEY (call_id, attempt, deployment_id, call_at)
) PARTITION BY RANGE (call_at);
-- A sequence number stands on one receipt only: each batch that comes is asked for it.
CREATE INDEX receipts_in_sequence ON receipts (deployment_id, sequence);
CREATE TABLE receipts_other PARTITION OF receipts DEFAULT;
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON receipts FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- How far receipts have been compared with calls, by call id, which rises with time. What is below `claimed` is, or is
-- just being, compared: a receipt that comes for it is late, and its call is compared once more.
CREATE TABLE receipt_horizon (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    claimed     uuid NOT NULL,
    compared    uuid NOT NULL CHECK (compared <= claimed)
);
INSERT INTO receipt_horizon (claimed, compared) SELECT id, id FROM (SELECT uuidv7() AS id) AS beginning;
CREATE TABLE receipts_late (
    call_id     uuid PRIMARY KEY
);

-- Where receipts and the broker's own records differ. A case never moves money. `further` counts the differences of its
-- kind at its deployment that were found while there were too many open cases to open one for each.
CREATE TABLE receipt_cases (
    id              uuid PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN (
        'no_receipt', 'unknown_call', 'not_billed', 'not_served', 'counts_differ', 'times_impossible')),
    provider_id     uuid NOT NULL REFERENCES accounts,
    deployment_id   uuid NOT NULL REFERENCES deployments,
    call_id         uuid NOT NULL,
    attempt         smallint NOT NULL,
    detail          jsonb NOT NULL,
    further         bigint NOT NULL DEFAULT 0 CHECK (further >= 0),
    opened_at       timestamptz NOT NULL,
    closed_at       timestamptz CHECK (closed_at >= opened_at),
    closed_by       text,
    close_reason    text,
    UNIQUE (call_id, attempt, deployment_id, kind),
    CHECK ((closed_at IS NULL) = (closed_by IS NULL) AND (closed_at IS NULL) = (close_reason IS NULL))
);
CREATE INDEX receipt_cases_of_provider ON receipt_cases (provider_id, id DESC);
CREATE INDEX receipt_cases_open ON receipt_cases (deployment_id, kind, id) WHERE closed_at IS NULL;

-- Of a key only its retirement may be written later, of a case only its end and its count.
CREATE TRIGGER immutable
    BEFORE DELETE OR UPDATE OF id, deployment_id, public_key, claim_json, signature, endorsed_by, endorsement, registered_at
    ON receipt_keys FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable
    BEFORE DELETE OR UPDATE OF id, kind, provider_id, deployment_id, call_id, attempt, detail, opened_at
    ON receipt_cases FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Every table that is partitioned by a time gets its months, so that no list has to be kept.
CREATE OR REPLACE FUNCTION ensure_partitions(first_day date, months integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    month date;
    made integer := 0;
BEGIN
    FOR parent IN
        SELECT c.relname FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
         WHERE c.relnamespace = current_schema()::regnamespace ORDER BY c.relname
    LOOP
        FOR step IN 0 .. months - 1 LOOP
            month := (date_trunc('month', first_day) + make_interval(months => step))::date;
            IF to_regclass(format('%I', parent || to_char(month, '_YYYYMM'))) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                    parent || to_char(month, '_YYYYMM'), parent,
                    (month::text || ' 00:00:00+00')::timestamptz,
                    ((month + interval '1 month')::date::text || ' 00:00:00+00')::timestamptz);
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date, 3);

-- What the monitor found when it last looked: how many rows by view, those without any included, at most 100 each.
CREATE TABLE ledger_checks (
    kind        text PRIMARY KEY CHECK (kind IN ('invariants', 'replay')),
    at          timestamptz NOT NULL,
    took_ms     double precision NOT NULL,
    alarms      jsonb NOT NULL
);

-- The replays read each table from end to end a fixed number of times, whatever there are of accounts and seals, and
-- keep one row for each account and seal: PostgreSQL folds them within work_mem, or on disk.
CREATE OR REPLACE VIEW replay_balance_is_its_entries AS
    SELECT coalesce(b.ledger_account_id, e.ledger_account_id) AS ledger_account_id, b.posted_nanos,
           coalesce(e.nanos, 0) AS folded_nanos
      FROM balances b
      FULL JOIN (SELECT ledger_account_id, sum(amount_nanos) AS nanos FROM ledger_entries GROUP BY 1) e
             ON e.ledger_account_id = b.ledger_account_id
     WHERE b.posted_nanos IS DISTINCT FROM coalesce(e.nanos, 0);

CREATE OR REPLACE VIEW replay_seal_is_its_entries AS
    WITH moments AS MATERIALIZED (
        SELECT array_agg(sealed_before ORDER BY sealed_before) AS list FROM seal_periods
    ), folded AS (
        -- An entry falls into the first seal whose moment is later than the entry's.
        SELECT e.ledger_account_id, m.list[width_bucket(e.at, m.list) + 1] AS sealed_before, sum(e.amount_nanos) AS nanos
          FROM ledger_entries e CROSS JOIN moments m
         WHERE e.at < m.list[cardinality(m.list)]
         GROUP BY 1, 2
    ), proved AS (
        SELECT coalesce(s.ledger_account_id, f.ledger_account_id) AS ledger_account_id,
               coalesce(s.sealed_before, f.sealed_before) AS sealed_before, s.posted_nanos,
               sum(coalesce(f.nanos, 0)) OVER (PARTITION BY coalesce(s.ledger_account_id, f.ledger_account_id)
                                               ORDER BY coalesce(s.sealed_before, f.sealed_before)) AS folded_nanos
          FROM seals s
          FULL JOIN folded f ON f.ledger_account_id = s.ledger_account_id AND f.sealed_before = s.sealed_before
    )
    SELECT ledger_account_id, sealed_before, posted_nanos, folded_nanos FROM proved
     WHERE posted_nanos IS DISTINCT FROM folded_nanos;

CREATE VIEW replay_held_is_its_holds AS
    SELECT b.ledger_account_id, b.held_nanos, coalesce(h.nanos, 0) - coalesce(s.nanos, 0) AS folded_nanos
      FROM balances b
      LEFT JOIN (SELECT ledger_account_id, sum(amount_nanos) AS nanos FROM holds GROUP BY 1) h
             ON h.ledger_account_id = b.ledger_account_id
      LEFT JOIN (SELECT ledger_account_id, sum(hold_nanos) AS nanos FROM settlements GROUP BY 1) s
             ON s.ledger_account_id = b.ledger_account_id
     WHERE b.held_nanos <> coalesce(h.nanos, 0) - coalesce(s.nanos, 0);

CREATE VIEW replay_charge_is_its_lines AS
    SELECT coalesce(s.ledger_account_id, l.payer_id) AS ledger_account_id, coalesce(s.nanos, 0) AS charged_nanos,
           coalesce(l.nanos, 0) AS lines_nanos
      FROM (SELECT ledger_account_id, sum(charge_nanos) AS nanos FROM settlements GROUP BY 1) s
      FULL JOIN (SELECT payer_id, sum(charge_nanos) AS nanos FROM settlement_lines GROUP BY 1) l
             ON l.payer_id = s.ledger_account_id
     WHERE coalesce(s.nanos, 0) <> coalesce(l.nanos, 0);
