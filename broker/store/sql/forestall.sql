-- Keeps holds of unknown fate from being opened any more. $1: the holds as JSON. Writes each that is not there as one that
-- was released at once: the statement that was cut off breaks on it, should it still run. Waits for who is just opening
-- one, and returns the calls whose hold was there.
WITH asked AS MATERIALIZED (
    SELECT * FROM json_to_recordset(convert_from($1::bytea, 'UTF8')::json) AS a(
        call_id uuid, account uuid, key_id text, amount_nanos bigint, created_at timestamptz, expires_at timestamptz)
), kept AS (
    INSERT INTO holds (call_id, ledger_account_id, key_id, amount_nanos, created_at, expires_at)
    SELECT call_id, account, key_id, amount_nanos, created_at, expires_at FROM asked
        ON CONFLICT DO NOTHING
    RETURNING call_id, ledger_account_id, amount_nanos, created_at
), settled AS (
    INSERT INTO settlements (call_id, ledger_account_id, kind, hold_nanos, charge_nanos, held_at, settled_at)
    SELECT call_id, ledger_account_id, 'released', amount_nanos, 0, created_at, greatest(now(), created_at) FROM kept
)
SELECT call_id FROM asked EXCEPT SELECT call_id FROM kept
