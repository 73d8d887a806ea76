-- More kinds of ledger accounts and transfers, and the events that tell of money.

-- A provider's `earnings` are pending until they mature into `available`; a payout under way is in `transit`, and
-- what a provider owes after a refund of money that was paid out already is its `receivable`, which is below zero.
ALTER TABLE ledger_accounts DROP CONSTRAINT ledger_accounts_kind_check;
ALTER TABLE ledger_accounts ADD CONSTRAINT ledger_accounts_kind_check
    CHECK (kind IN ('funds', 'earnings', 'take', 'world', 'available', 'transit', 'receivable')) NOT VALID;
ALTER TABLE ledger_accounts VALIDATE CONSTRAINT ledger_accounts_kind_check;

ALTER TABLE transfers DROP CONSTRAINT transfers_kind_check;
ALTER TABLE transfers ADD CONSTRAINT transfers_kind_check CHECK (kind IN (
    'topup', 'adjustment', 'payout', 'payout_sent', 'payout_failed', 'payout_returned', 'maturity', 'recovery', 'refund',
    'sla_credit', 'evaluation')) NOT VALID;
ALTER TABLE transfers VALIDATE CONSTRAINT transfers_kind_check;

-- What a transfer is about: the call that is refunded, the batch or case that it belongs to.
ALTER TABLE transfers ADD COLUMN call_id uuid, ADD COLUMN about_id uuid;
CREATE INDEX transfers_of_call ON transfers (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX transfers_about ON transfers (about_id) WHERE about_id IS NOT NULL;
CREATE INDEX transfers_of_debit ON transfers (debit_id, created_at);
CREATE INDEX transfers_of_credit ON transfers (credit_id, created_at);

-- What happened to money, told in the transaction in which it happened; never changed. `account_id` is whom it concerns,
-- null for operators alone; events of one `object` are told in the order of their numbers.
CREATE TABLE events (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          uuid NOT NULL UNIQUE,
    at          timestamptz NOT NULL,
    account_id  uuid REFERENCES accounts,
    kind        text NOT NULL,
    object      text NOT NULL,
    payload     jsonb NOT NULL
);
CREATE INDEX events_of_account ON events (account_id, number);
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change();
