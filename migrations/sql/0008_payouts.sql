-- Earnings that mature, and payouts with their items. All tables are new; to the standing ones only rows are added, three
-- for each provider, so nothing is locked for long and nothing is rewritten.

-- Whoever has earnings has the purses that they go through. A trigger opens them, so that a process of the former version,
-- which knows of none, opens a whole provider too.
CREATE FUNCTION open_further_purses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH opened AS (
        INSERT INTO ledger_accounts (id, owner_id, kind, currency, created_at)
            SELECT uuidv7(), NEW.owner_id, kind, NEW.currency, NEW.created_at
              FROM unnest(ARRAY['available', 'transit', 'receivable']) AS kind
            RETURNING id, kind
    ) INSERT INTO balances (ledger_account_id, may_overdraw) SELECT id, kind = 'receivable' FROM opened;
    RETURN NULL;
END $$;
CREATE TRIGGER further_purses AFTER INSERT ON ledger_accounts FOR EACH ROW
    WHEN (NEW.kind = 'earnings') EXECUTE FUNCTION open_further_purses();

WITH opened AS (
    INSERT INTO ledger_accounts (id, owner_id, kind, currency, created_at)
        SELECT uuidv7(), e.owner_id, k.kind, e.currency, now()
          FROM ledger_accounts e CROSS JOIN unnest(ARRAY['available', 'transit', 'receivable']) AS k(kind)
         WHERE e.kind = 'earnings'
        RETURNING id, kind
) INSERT INTO balances (ledger_account_id, may_overdraw) SELECT id, kind = 'receivable' FROM opened;

-- Where a provider's money goes. A change adds a row, so that a payout keeps the destination it was made for; only
-- `sealed` is ever written again, when the secret key is rotated.
CREATE TABLE payout_destinations (
    id              uuid PRIMARY KEY,
    provider_id     uuid NOT NULL REFERENCES accounts,
    method          text NOT NULL CHECK (method IN ('bank', 'stripe')),
    sealed          bytea NOT NULL,
    hint            text NOT NULL,
    created_at      timestamptz NOT NULL
);
CREATE INDEX payout_destinations_of_provider ON payout_destinations (provider_id);

-- What a provider wants, and how long an operator lets its earnings wait (null: by the general rule). A provider
-- without a row has the defaults and nowhere to send money to.
CREATE TABLE payout_terms (
    provider_id     uuid PRIMARY KEY REFERENCES accounts,
    schedule        text NOT NULL CHECK (schedule IN ('manual', 'daily', 'weekly', 'monthly')),
    threshold_nanos bigint NOT NULL CHECK (threshold_nanos >= 0),
    destination_id  uuid REFERENCES payout_destinations,
    next_at         timestamptz,
    delay_days      smallint CHECK (delay_days BETWEEN 0 AND 365),
    updated_at      timestamptz NOT NULL,
    CHECK ((next_at IS NULL) = (schedule = 'manual'))
);
CREATE INDEX payout_terms_due ON payout_terms (next_at) WHERE next_at IS NOT NULL;

-- Payouts that were made together and go out by one way: one file for the bank, one round of calls to a service.
CREATE TABLE payout_batches (
    id              uuid PRIMARY KEY,
    method          text NOT NULL CHECK (method IN ('bank', 'stripe')),
    currency        text NOT NULL CHECK (currency = 'USD'),
    author          text NOT NULL,
    created_at      timestamptz NOT NULL,
    exported_at     timestamptz
);

-- Whole cents. `submitted_at` is set before a service is first asked to pay, so that nobody takes the money back while
-- it may be on its way.
CREATE TABLE payouts (
    id              uuid PRIMARY KEY,
    batch_id        uuid NOT NULL REFERENCES payout_batches,
    provider_id     uuid NOT NULL REFERENCES accounts,
    number          integer NOT NULL CHECK (number > 0),
    destination_id  uuid NOT NULL REFERENCES payout_destinations,
    amount_nanos    bigint NOT NULL CHECK (amount_nanos > 0 AND amount_nanos % 10000000 = 0),
    status          text NOT NULL CHECK (status IN ('open', 'sent', 'failed', 'returned')),
    created_at      timestamptz NOT NULL,
    submitted_at    timestamptz,
    reference       text NOT NULL DEFAULT '',
    UNIQUE (provider_id, number)
);
CREATE INDEX payouts_of_batch ON payouts (batch_id);
CREATE INDEX payouts_at ON payouts (created_at);
CREATE INDEX payouts_open ON payouts (provider_id) WHERE status = 'open';

-- A payout is the sum of its items: every transfer to or from `available` that no payout had yet, what the payout before
-- kept back (`carried_from`), and, with neither, what this one keeps back: less than a cent, and what is disputed.
CREATE TABLE payout_items (
    payout_id       uuid NOT NULL REFERENCES payouts,
    transfer_id     uuid UNIQUE REFERENCES transfers,
    carried_from    uuid UNIQUE REFERENCES payouts,
    amount_nanos    bigint NOT NULL CHECK (amount_nanos <> 0),
    UNIQUE NULLS NOT DISTINCT (payout_id, transfer_id, carried_from),
    CHECK (transfer_id IS NULL OR carried_from IS NULL),
    CHECK (carried_from IS NULL OR amount_nanos > 0),
    CHECK (transfer_id IS NOT NULL OR carried_from IS NOT NULL OR amount_nanos < 0)
);

CREATE FUNCTION payout_goes_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.batch_id, NEW.provider_id, NEW.number, NEW.destination_id, NEW.amount_nanos, NEW.created_at)
       IS DISTINCT FROM
       (OLD.id, OLD.batch_id, OLD.provider_id, OLD.number, OLD.destination_id, OLD.amount_nanos, OLD.created_at)
       OR (NEW.status <> OLD.status
           AND (OLD.status, NEW.status) NOT IN (('open', 'sent'), ('open', 'failed'), ('sent', 'returned')))
    THEN
        RAISE EXCEPTION 'payout %: from % to % is refused', OLD.id, OLD.status, NEW.status
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER forward BEFORE UPDATE ON payouts FOR EACH ROW EXECUTE FUNCTION payout_goes_forward();
CREATE TRIGGER immutable BEFORE DELETE ON payouts FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE DELETE ON payout_batches FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON payout_items FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- The purses of a provider, side by side.
CREATE VIEW provider_purses AS
    SELECT owner_id AS provider_id,
           (array_agg(id) FILTER (WHERE kind = 'earnings'))[1] AS earnings_id,
           (array_agg(id) FILTER (WHERE kind = 'available'))[1] AS available_id,
           (array_agg(id) FILTER (WHERE kind = 'transit'))[1] AS transit_id,
           (array_agg(id) FILTER (WHERE kind = 'receivable'))[1] AS receivable_id
      FROM ledger_accounts
     WHERE kind IN ('earnings', 'available', 'transit', 'receivable') AND shard = 0
     GROUP BY owner_id;

-- What of the earnings that stood at a seal is still pending: less what has left since on its account, which is what
-- matured, and what was taken back for calls settled before the seal; all else that left is dated by when it left. It
-- needs no sum over the lines of calls: the seal has summed them.
CREATE VIEW pending_at_seals AS
    SELECT s.ledger_account_id, s.sealed_before,
           s.posted_nanos - coalesce((
               SELECT sum(t.amount_nanos) FROM transfers t
                WHERE t.debit_id = s.ledger_account_id AND t.created_at >= s.sealed_before
                  AND (t.kind = 'maturity' OR (t.call_id IS NOT NULL AND (
                        -- An aggregate is looked up call by call; NOT EXISTS may hash all lines since the seal.
                        SELECT count(*) FROM settlement_lines l
                         WHERE l.call_id = t.call_id AND l.payee_id = t.debit_id
                           AND l.settled_at >= s.sealed_before) = 0))), 0)::bigint AS pending_nanos
      FROM seals s JOIN ledger_accounts a ON a.id = s.ledger_account_id AND a.kind = 'earnings';

-- Just what came after the watermark is pending.
CREATE VIEW invariant_earnings_are_unmatured AS
    SELECT m.provider_id, m.matured_before, p.pending_nanos
      FROM maturities m
      JOIN ledger_accounts a ON a.owner_id = m.provider_id AND a.kind = 'earnings'
      JOIN pending_at_seals p ON p.ledger_account_id = a.id AND p.sealed_before = m.matured_before
     WHERE p.pending_nanos <> 0;

-- A payout beside what its items sum to and what its transfers say, and what they should say of its status.
CREATE VIEW payout_records AS
    SELECT p.id, p.created_at, p.status, p.amount_nanos,
           (SELECT coalesce(sum(i.amount_nanos), 0) FROM payout_items i WHERE i.payout_id = p.id) AS items_nanos,
           (SELECT array_agg(t.kind ORDER BY t.kind) FROM transfers t
             WHERE t.about_id = p.id AND t.amount_nanos = p.amount_nanos) AS kinds,
           CASE p.status
             WHEN 'open' THEN ARRAY['payout']
             WHEN 'sent' THEN ARRAY['payout', 'payout_sent']
             WHEN 'failed' THEN ARRAY['payout', 'payout_failed']
             ELSE ARRAY['payout', 'payout_returned', 'payout_sent'] END AS kinds_due
      FROM payouts p;

CREATE VIEW invariant_payout_is_its_items AS
    SELECT id, amount_nanos, items_nanos FROM payout_records
     WHERE (created_at >= (SELECT sealed_before FROM last_seal) OR status = 'open') AND amount_nanos <> items_nanos;

CREATE VIEW invariant_payout_is_its_transfers AS
    SELECT id, status, kinds FROM payout_records
     WHERE (created_at >= (SELECT sealed_before FROM last_seal) OR status = 'open') AND kinds IS DISTINCT FROM kinds_due;

CREATE VIEW replay_payout_is_its_records AS
    SELECT id, status, amount_nanos, items_nanos, kinds FROM payout_records
     WHERE amount_nanos <> items_nanos OR kinds IS DISTINCT FROM kinds_due;

-- An item beside what it should be: a whole transfer of the provider's own, or all that an earlier payout kept back.
CREATE VIEW payout_item_records AS
    SELECT i.payout_id, p.created_at, i.transfer_id, i.carried_from, i.amount_nanos,
           CASE WHEN t.kind = 'payout' THEN NULL
                WHEN t.credit_id = a.id THEN t.amount_nanos
                WHEN t.debit_id = a.id THEN -t.amount_nanos
                WHEN f.provider_id = p.provider_id AND f.number < p.number THEN -k.amount_nanos END AS due_nanos
      FROM payouts p
      JOIN payout_items i ON i.payout_id = p.id
      LEFT JOIN ledger_accounts a ON a.owner_id = p.provider_id AND a.kind = 'available' AND a.shard = 0
      LEFT JOIN transfers t ON t.id = i.transfer_id
      LEFT JOIN payouts f ON f.id = i.carried_from
      LEFT JOIN payout_items k ON k.payout_id = i.carried_from AND k.transfer_id IS NULL AND k.carried_from IS NULL
     WHERE i.transfer_id IS NOT NULL OR i.carried_from IS NOT NULL;

CREATE VIEW invariant_item_is_what_it_pays AS
    SELECT payout_id, transfer_id, carried_from, amount_nanos, due_nanos FROM payout_item_records
     WHERE created_at >= (SELECT sealed_before FROM last_seal) AND amount_nanos IS DISTINCT FROM due_nanos;

CREATE VIEW replay_item_is_what_it_pays AS
    SELECT payout_id, transfer_id, carried_from, amount_nanos, due_nanos FROM payout_item_records
     WHERE amount_nanos IS DISTINCT FROM due_nanos;

CREATE VIEW invariant_transit_is_open_payouts AS
    SELECT a.owner_id AS provider_id, b.posted_nanos, coalesce(o.open_nanos, 0) AS open_nanos
      FROM ledger_accounts a
      JOIN balances b ON b.ledger_account_id = a.id
      LEFT JOIN (SELECT provider_id, sum(amount_nanos) AS open_nanos FROM payouts
                  WHERE status = 'open' GROUP BY provider_id) o ON o.provider_id = a.owner_id
     WHERE a.kind = 'transit' AND b.posted_nanos <> coalesce(o.open_nanos, 0);

-- What is available is what no payout has yet: transfers that are in none, and what the last one kept back.
CREATE VIEW replay_available_is_unpaid AS
    SELECT b.ledger_account_id, b.posted_nanos, u.unpaid_nanos
      FROM ledger_accounts a
      JOIN balances b ON b.ledger_account_id = a.id
      CROSS JOIN LATERAL (
        SELECT coalesce((SELECT sum(CASE WHEN t.credit_id = a.id THEN t.amount_nanos ELSE -t.amount_nanos END)
                           FROM transfers t
                          WHERE (t.credit_id = a.id OR t.debit_id = a.id) AND t.kind <> 'payout'
                            AND NOT EXISTS (SELECT 1 FROM payout_items i WHERE i.transfer_id = t.id)), 0)
             - coalesce((SELECT sum(k.amount_nanos) FROM payouts p JOIN payout_items k ON k.payout_id = p.id
                          WHERE p.provider_id = a.owner_id AND k.transfer_id IS NULL AND k.carried_from IS NULL
                            AND NOT EXISTS (SELECT 1 FROM payout_items c WHERE c.carried_from = p.id)), 0)
               AS unpaid_nanos) u
     WHERE a.kind = 'available' AND b.posted_nanos <> u.unpaid_nanos;

-- The same as invariant_earnings_are_unmatured, from the lines of calls themselves.
CREATE VIEW replay_earnings_are_unmatured AS
    SELECT m.provider_id, b.posted_nanos, u.unmatured_nanos
      FROM maturities m
      JOIN seal_periods s ON s.sealed_before = m.matured_before
      JOIN ledger_accounts a ON a.owner_id = m.provider_id AND a.kind = 'earnings'
      JOIN balances b ON b.ledger_account_id = a.id
      LEFT JOIN (SELECT w.owner_id, sum(l.earnings_nanos) AS lines_nanos
                   FROM settlement_lines l
                   JOIN ledger_accounts w ON w.id = l.payee_id AND w.kind = 'earnings'
                   JOIN maturities n ON n.provider_id = w.owner_id AND l.settled_at >= n.matured_before
                  GROUP BY w.owner_id) e ON e.owner_id = m.provider_id
      CROSS JOIN LATERAL (
        SELECT coalesce(e.lines_nanos, 0)
             + (SELECT coalesce(sum(t.amount_nanos), 0) FROM transfers t
                 WHERE t.credit_id = a.id AND t.created_at >= m.matured_before)
             - (SELECT coalesce(sum(t.amount_nanos), 0) FROM transfers t
                 WHERE t.debit_id = a.id AND t.created_at >= m.matured_before AND t.kind <> 'maturity'
                   AND (t.call_id IS NULL OR EXISTS (
                         SELECT 1 FROM settlement_lines l WHERE l.call_id = t.call_id AND l.payee_id = a.id
                                                            AND l.settled_at >= m.matured_before))) AS unmatured_nanos) u
     WHERE b.posted_nanos <> u.unmatured_nanos;

-- The console's one line an account: a provider's purses in one sum, all that it has earned and not been paid.
CREATE OR REPLACE VIEW console_purses AS
    SELECT owner_id AS account_id, kind, sum(posted_nanos)::bigint AS posted_nanos, sum(held_nanos)::bigint AS held_nanos
      FROM (SELECT a.owner_id, b.posted_nanos, b.held_nanos,
                   CASE WHEN a.kind IN ('available', 'transit', 'receivable') THEN 'earnings' ELSE a.kind END AS kind
              FROM ledger_accounts a JOIN balances b ON b.ledger_account_id = a.id
             WHERE a.kind <> 'world') p
     GROUP BY owner_id, kind;
