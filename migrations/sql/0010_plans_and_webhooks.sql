-- Commission plans, webhooks, and an audit log of which every entry is chained to the one before. The tables are new.
-- Of the standing ones, `events` gets a column that is null in the rows there are, so nothing is rewritten; triggers and
-- checks take their locks for a moment, and what is validated is read without keeping anybody from writing.

-- What the broker takes of a charge, in basis points, by tiers of what the provider has sold in the calendar month (UTC).
-- Append-only: a later row of the same provider and domain replaces the one before from `effective_from` on; one
-- without tiers ends it. Null provider: any; null domain: any. Nothing takes effect before it was written down.
CREATE FUNCTION tiers_are_sound(tiers jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(bool_and(coalesce(from_nanos > before, from_nanos = 0) AND take_bps BETWEEN 0 AND 10000), true)
      FROM (SELECT from_nanos, take_bps, lag(from_nanos) OVER (ORDER BY place) AS before
              FROM (SELECT place, (tier ->> 0)::bigint AS from_nanos, (tier ->> 1)::integer AS take_bps
                      FROM jsonb_array_elements(tiers) WITH ORDINALITY AS listed (tier, place)) AS tier) AS step
$$;
CREATE TABLE commission_plans (
    id              uuid PRIMARY KEY,
    provider_id     uuid REFERENCES accounts,
    domain          text CHECK (domain <> ''),
    tiers           jsonb NOT NULL CHECK (jsonb_typeof(tiers) = 'array' AND tiers_are_sound(tiers)),
    effective_from  timestamptz NOT NULL CHECK (effective_from >= created_at),
    reason          text NOT NULL CHECK (reason <> ''),
    author          text NOT NULL CHECK (author <> ''),
    created_at      timestamptz NOT NULL
);

-- What each provider sold, by the hour in which it was settled. Kept only for plans with several tiers; the newest hours
-- are counted anew until nothing can be dated into them any more.
CREATE TABLE provider_volumes (
    hour            timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    provider_id     uuid NOT NULL REFERENCES accounts,
    charge_nanos    bigint NOT NULL CHECK (charge_nanos >= 0),
    PRIMARY KEY (hour, provider_id)
);
CREATE TABLE volume_progress (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    counted_before  timestamptz NOT NULL
);

-- Who wants to be told of what. `told_from`: events of before are not sent unless asked for. After failures in a row
-- nothing is sent until `resume_at`. One worker at a time sends to a webhook: the one that leased it.
CREATE TABLE webhooks (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    url             text NOT NULL,
    kinds           text[] NOT NULL CHECK (cardinality(kinds) > 0),
    secret_sealed   bytea NOT NULL,
    former_sealed   bytea,
    former_until    timestamptz,
    status          text NOT NULL CHECK (status IN ('enabled', 'disabled')),
    created_at      timestamptz NOT NULL,
    told_from       timestamptz NOT NULL,
    failures        integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    failing_since   timestamptz,
    resume_at       timestamptz NOT NULL,
    leased_until    timestamptz NOT NULL DEFAULT 'epoch',
    pinged_at       timestamptz,
    CHECK ((former_sealed IS NULL) = (former_until IS NULL)),
    CHECK ((failures = 0) = (failing_since IS NULL))
);
CREATE INDEX webhooks_of_account ON webhooks (account_id);

-- What is to be sent to a webhook, and what became of it. `place` orders the events of one object; a settled call, which
-- is no row of `events`, comes before all that is told of it later.
CREATE TABLE webhook_deliveries (
    webhook_id      uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    event_id        uuid NOT NULL,
    kind            text NOT NULL,
    object          text NOT NULL,
    place           bigint NOT NULL,
    at              timestamptz NOT NULL,
    state           text NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed')),
    attempts        smallint NOT NULL DEFAULT 0,
    queued_at       timestamptz NOT NULL,
    due_at          timestamptz NOT NULL,
    tried_at        timestamptz,
    status          smallint,
    fault           text,
    detail          text,
    PRIMARY KEY (webhook_id, event_id)
);
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (webhook_id, due_at, place) WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_of_object ON webhook_deliveries (webhook_id, object, place) WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_over ON webhook_deliveries (tried_at) WHERE state <> 'waiting';

-- The transaction that told an event. Whatever is older than the oldest transaction under way is complete.
ALTER TABLE events ADD COLUMN xid xid8;
ALTER TABLE events ALTER COLUMN xid SET DEFAULT pg_current_xact_id();
CREATE INDEX events_by_transaction ON events (xid) WHERE xid IS NOT NULL;  -- of no row yet, whatever stands in the table

-- How far events and settled calls have been queued. `events_seen` is the greatest number of an event so far; events up
-- to `events_after` were queued by another server, whose transactions were numbered otherwise. `calls_from` is a bound of
-- call ids, which rise with time; `stragglers` are the calls below it that were still open.
CREATE TABLE webhook_progress (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    events_from     xid8 NOT NULL,
    events_seen     bigint NOT NULL,
    events_after    bigint NOT NULL DEFAULT 0,
    calls_from      uuid NOT NULL,
    stragglers      uuid[] NOT NULL DEFAULT '{}',
    looked_back_at  timestamptz NOT NULL
);
INSERT INTO webhook_progress (events_from, events_seen, calls_from, looked_back_at)
    SELECT pg_snapshot_xmin(pg_current_snapshot()), coalesce(max(number), 0), uuidv7(), now() FROM events;

-- Each entry of the audit log gets a link in the order of the commits: the hash of the link before and of the entry
-- itself. The trigger is deferred to the very end of the transaction, so whoever waits for the lock waits for a commit and
-- for nothing else. Who rewrites an entry has to rewrite all links after it, and cannot rewrite their seals, which are
-- made with a key that is not in the database.
CREATE TABLE audit_chain (
    number      bigint PRIMARY KEY CHECK (number > 0),
    entry_id    uuid NOT NULL UNIQUE REFERENCES audit_log,
    hash        bytea NOT NULL CHECK (length(hash) = 32)
);
CREATE TABLE audit_seals (
    number      bigint PRIMARY KEY REFERENCES audit_chain,
    sealed      bytea NOT NULL,
    created_at  timestamptz NOT NULL
);
CREATE FUNCTION audit_hash(before bytea, entry audit_log) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(before || convert_to(jsonb_build_array(entry.id, (extract(epoch FROM entry.at) * 1000000)::bigint,
                                                         entry.author, entry.action, entry.object, entry.detail)::text, 'UTF8'))
$$;
CREATE FUNCTION chain_audit_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last audit_chain;
BEGIN
    PERFORM pg_advisory_xact_lock(418565088617);  -- any number that nothing else locks on
    SELECT * INTO last FROM audit_chain ORDER BY number DESC LIMIT 1;
    INSERT INTO audit_chain (number, entry_id, hash)
        VALUES (coalesce(last.number, 0) + 1, NEW.id, audit_hash(coalesce(last.hash, ''), NEW));
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER chained AFTER INSERT ON audit_log
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chain_audit_entry();
DO $$
DECLARE
    entry audit_log;
    last bytea := '';
    number bigint := 0;
BEGIN
    FOR entry IN SELECT * FROM audit_log ORDER BY id LOOP
        number := number + 1;
        last := audit_hash(last, entry);
        INSERT INTO audit_chain VALUES (number, entry.id, last);
    END LOOP;
END $$;

CREATE VIEW invariant_audit_is_chained AS
    SELECT l.id, l.at, l.action FROM audit_log l
     WHERE l.at >= (SELECT sealed_before FROM last_seal)
       AND NOT EXISTS (SELECT 1 FROM audit_chain c WHERE c.entry_id = l.id);

CREATE VIEW replay_audit_chain AS
    SELECT coalesce(c.number, 0) AS number, l.id AS entry_id
      FROM audit_log l
      FULL JOIN (SELECT number, entry_id, hash, lag(hash) OVER w AS before, lag(number) OVER w AS number_before
                   FROM audit_chain WINDOW w AS (ORDER BY number)) c ON c.entry_id = l.id
     WHERE c.number IS NULL OR l.id IS NULL OR c.number <> coalesce(c.number_before, 0) + 1
        OR c.hash <> audit_hash(coalesce(c.before, ''), l);

-- Corrections say why, and who made them.
ALTER TABLE transfers ADD CONSTRAINT transfers_adjustment_explained
    CHECK (kind <> 'adjustment' OR (btrim(reason) <> '' AND btrim(author) <> '')) NOT VALID;
ALTER TABLE transfers VALIDATE CONSTRAINT transfers_adjustment_explained;

CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON commission_plans FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON audit_chain FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON audit_seals FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What refuses UPDATE and DELETE refuses TRUNCATE as well. Triggers for TRUNCATE are not handed down to partitions, so each
-- partition gets its own, those of months to come included.
CREATE FUNCTION refuse_truncation() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    relation regclass;
BEGIN
    FOR relation IN
        SELECT t.tgrelid FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
         WHERE t.tgname = 'immutable' AND c.relnamespace = current_schema()::regnamespace
           AND NOT EXISTS (SELECT 1 FROM pg_trigger o WHERE o.tgrelid = t.tgrelid AND o.tgname = 'not_truncated')
         ORDER BY c.relname
    LOOP
        EXECUTE format('CREATE TRIGGER not_truncated BEFORE TRUNCATE ON %s EXECUTE FUNCTION refuse_change()', relation);
    END LOOP;
END $$;
ALTER FUNCTION ensure_partitions(date, integer) RENAME TO make_partitions;
CREATE FUNCTION ensure_partitions(first_day date, months integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    made integer := make_partitions(first_day, months);
BEGIN
    IF made > 0 THEN
        PERFORM refuse_truncation();
    END IF;
    RETURN made;
END $$;
SELECT refuse_truncation();
