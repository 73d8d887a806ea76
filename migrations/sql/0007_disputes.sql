-- What happens after a call: credit notes, disputes, invoices, credits for promises that were missed, and counts of lost
-- calls. All tables are new; of the standing ones only `offers` changes, by columns that are null, which rewrites nothing.

-- All earnings of a provider's lines settled before this moment have been moved from `earnings` to `available`, less
-- what had been taken back from `earnings` for those calls by then. No row: nothing has been moved yet. Whoever moves
-- it on holds the row locks of the provider's balances, and so does whoever takes money back.
CREATE TABLE maturities (
    provider_id     uuid PRIMARY KEY REFERENCES accounts,
    matured_before  timestamptz NOT NULL
);

-- How far a job has come that goes through records in the order of their times.
CREATE TABLE progress (
    job             text PRIMARY KEY,
    done_before     timestamptz NOT NULL
);

-- Money that went back to a consumer. Numbered for each consumer without a gap: the next number is drawn under the row
-- lock of the consumer's funds.
CREATE TABLE credit_notes (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    number          integer NOT NULL CHECK (number > 0),
    kind            text NOT NULL CHECK (kind IN ('refund', 'sla_credit')),
    call_id         uuid NOT NULL,
    dispute_id      uuid,
    amount_nanos    bigint NOT NULL CHECK (amount_nanos > 0),
    reason          text NOT NULL CHECK (reason <> ''),
    author          text NOT NULL,
    created_at      timestamptz NOT NULL,
    UNIQUE (account_id, number)
);
CREATE INDEX credit_notes_of_call ON credit_notes (call_id);
CREATE UNIQUE INDEX credit_notes_one_sla_credit ON credit_notes (call_id) WHERE kind = 'sla_credit';

-- What of each line of the call went back; `take` by the broker, `earnings` by the provider.
CREATE TABLE credit_note_lines (
    credit_note_id  uuid NOT NULL REFERENCES credit_notes,
    attempt         smallint NOT NULL,
    endpoint_id     uuid NOT NULL,
    provider_id     uuid NOT NULL REFERENCES accounts,
    amount_nanos    bigint NOT NULL CHECK (amount_nanos > 0),
    take_nanos      bigint NOT NULL CHECK (take_nanos >= 0),
    earnings_nanos  bigint NOT NULL CHECK (earnings_nanos >= 0),
    PRIMARY KEY (credit_note_id, attempt),
    CHECK (amount_nanos = take_nanos + earnings_nanos)
);
CREATE INDEX credit_note_lines_of_provider ON credit_note_lines (provider_id, credit_note_id DESC);

-- A consumer's word against a call. `open` while a provider has still to answer, `contested` while an operator has to
-- decide.
CREATE TABLE disputes (
    id              uuid PRIMARY KEY,
    call_id         uuid NOT NULL,
    account_id      uuid NOT NULL REFERENCES accounts,
    asked_nanos     bigint NOT NULL CHECK (asked_nanos > 0),
    reason          text NOT NULL CHECK (reason <> ''),
    status          text NOT NULL CHECK (status IN ('open', 'contested', 'decided', 'withdrawn')),
    opened_at       timestamptz NOT NULL,
    answer_by       timestamptz NOT NULL,
    closed_at       timestamptz,
    verdict         text CHECK (verdict IN ('upheld', 'rejected')),
    verdict_words   text NOT NULL DEFAULT '',
    CHECK ((closed_at IS NULL) = (status IN ('open', 'contested'))),
    CHECK (verdict IS NULL OR status = 'decided')
);
CREATE UNIQUE INDEX disputes_one_at_a_time ON disputes (call_id) WHERE status IN ('open', 'contested');
CREATE INDEX disputes_of_call ON disputes (call_id);
CREATE INDEX disputes_of_account ON disputes (account_id, id DESC);
CREATE INDEX disputes_due ON disputes (answer_by) WHERE status = 'open';

-- The share of each provider whose lines the call has, and what it says to it.
CREATE TABLE dispute_parts (
    dispute_id      uuid NOT NULL REFERENCES disputes,
    provider_id     uuid NOT NULL REFERENCES accounts,
    asked_nanos     bigint NOT NULL CHECK (asked_nanos > 0),
    answer          text NOT NULL CHECK (answer IN ('waiting', 'accepted', 'contested', 'overdue')),
    words           text NOT NULL DEFAULT '',
    answered_at     timestamptz,
    refunded_nanos  bigint NOT NULL DEFAULT 0 CHECK (refunded_nanos BETWEEN 0 AND asked_nanos),
    PRIMARY KEY (dispute_id, provider_id),
    CHECK ((answered_at IS NULL) = (answer = 'waiting'))
);
CREATE INDEX dispute_parts_of_provider ON dispute_parts (provider_id, dispute_id DESC);

-- A closed month of an account as it was told once and for all. Its opening balance is the closing one of the invoice
-- before it.
CREATE TABLE invoices (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    number          integer NOT NULL CHECK (number > 0),
    month           date NOT NULL CHECK (extract(day FROM month) = 1),
    opening_nanos   bigint NOT NULL,
    closing_nanos   bigint NOT NULL,
    content         jsonb NOT NULL,
    issued_at       timestamptz NOT NULL,
    UNIQUE (account_id, month),
    UNIQUE (account_id, number)
);

-- Why an endpoint did not get calls, or lost them, counted by the hour in which they ended. `rank` is the place among
-- the candidates of those that were outranked, 0 for the others.
CREATE TABLE lost_calls (
    endpoint_number integer NOT NULL,
    hour            timestamptz NOT NULL,
    fate            text NOT NULL CHECK (fate IN ('served', 'refused', 'outranked', 'failed')),
    reason          text NOT NULL,
    detail          text NOT NULL,
    rank            smallint NOT NULL,
    calls           bigint NOT NULL CHECK (calls > 0),
    PRIMARY KEY (endpoint_number, hour, fate, reason, detail, rank)
);

-- What a provider promises; an offer without them promises nothing.
ALTER TABLE offers ADD COLUMN promised_ttft_ms integer, ADD COLUMN promised_latency_ms integer;

CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON credit_notes FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON credit_note_lines FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A credit note says what its transfers moved, in sum and line by line.
CREATE VIEW invariant_credit_note_is_its_transfers AS
    SELECT n.id, n.amount_nanos, t.moved_nanos, l.lines_nanos
      FROM credit_notes n
      CROSS JOIN LATERAL (SELECT coalesce(sum(amount_nanos), 0) AS moved_nanos FROM transfers
                           WHERE about_id = n.id AND call_id = n.call_id AND kind = n.kind) t
      CROSS JOIN LATERAL (SELECT coalesce(sum(amount_nanos), 0) AS lines_nanos FROM credit_note_lines
                           WHERE credit_note_id = n.id) l
     WHERE n.created_at >= (SELECT sealed_before FROM last_seal)
       AND (n.amount_nanos <> t.moved_nanos OR n.amount_nanos <> l.lines_nanos);

-- No line of a call gives back more than it took, neither in sum nor of either share.
CREATE VIEW invariant_refund_is_within_the_charge AS
    SELECT b.call_id, b.attempt, b.amount_nanos, l.charge_nanos
      FROM (SELECT n.call_id, c.attempt, sum(c.amount_nanos) AS amount_nanos, sum(c.take_nanos) AS take_nanos,
                   sum(c.earnings_nanos) AS earnings_nanos
              FROM credit_notes n JOIN credit_note_lines c ON c.credit_note_id = n.id
             WHERE n.call_id IN (SELECT call_id FROM credit_notes
                                  WHERE created_at >= (SELECT sealed_before FROM last_seal))
             GROUP BY n.call_id, c.attempt) b
      LEFT JOIN settlement_lines l ON l.call_id = b.call_id AND l.attempt = b.attempt
     WHERE l.call_id IS NULL OR b.amount_nanos > l.charge_nanos OR b.take_nanos > l.take_nanos
        OR b.earnings_nanos > l.earnings_nanos;

-- An invoice goes on where the one before it ended, and ends where the books of its month did.
CREATE VIEW invariant_invoice_goes_on AS
    SELECT i.id, i.number, i.opening_nanos, b.closing_nanos AS before_nanos
      FROM invoices i LEFT JOIN invoices b ON b.account_id = i.account_id AND b.number = i.number - 1
     WHERE i.issued_at >= (SELECT sealed_before FROM last_seal)
       AND (i.opening_nanos <> coalesce(b.closing_nanos, 0) OR b.month >= i.month OR (i.number > 1 AND b.id IS NULL));

CREATE VIEW replay_invoice_is_its_entries AS
    SELECT i.id, i.closing_nanos, e.folded_nanos
      FROM invoices i
      CROSS JOIN LATERAL (
        SELECT coalesce(sum(amount_nanos), 0) AS folded_nanos FROM ledger_entries
         WHERE ledger_account_id IN (SELECT id FROM ledger_accounts WHERE owner_id = i.account_id)
           AND at < (i.month + interval '1 month')::timestamp AT TIME ZONE 'UTC') e
     WHERE i.closing_nanos <> e.folded_nanos;
