-- Opens holds. $1: the holds as JSON, in order; $2: the process that asks. Returns those refused, by their place from 1,
-- with what their account has left; null where there is no account.
WITH asked AS MATERIALIZED (
    SELECT * FROM ROWS FROM (json_to_recordset($1::json) AS (
        call_id uuid, account uuid, key_id text, amount_nanos bigint, created_at timestamptz, expires_at timestamptz
    )) WITH ORDINALITY AS a(call_id, account, key_id, amount_nanos, created_at, expires_at, n)
), locked AS MATERIALIZED (
    SELECT ledger_account_id AS account, posted_nanos - held_nanos AS available_nanos
      FROM balances WHERE ledger_account_id = ANY(ARRAY(SELECT account FROM asked))
     ORDER BY ledger_account_id FOR UPDATE
), judged AS MATERIALIZED (
    SELECT a.*, l.available_nanos, coalesce(
               sum(a.amount_nanos) OVER (PARTITION BY a.account ORDER BY a.n) <= l.available_nanos, false) AS fits
      FROM asked a LEFT JOIN locked l USING (account)
), kept AS (
    INSERT INTO holds (call_id, ledger_account_id, key_id, amount_nanos, created_at, expires_at)
    SELECT call_id, account, key_id, amount_nanos, created_at, expires_at FROM judged WHERE fits
), opened AS (
    INSERT INTO open_holds (call_id, ledger_account_id, process_id, amount_nanos, created_at, expires_at)
    SELECT call_id, account, $2::integer, amount_nanos, created_at, expires_at FROM judged WHERE fits
), taken AS MATERIALIZED (
    SELECT account, sum(amount_nanos)::bigint AS nanos FROM judged WHERE fits GROUP BY account
), moved AS (
    UPDATE balances b SET held_nanos = b.held_nanos + t.nanos FROM taken t WHERE b.ledger_account_id = t.account
)
SELECT j.n::integer, j.available_nanos - coalesce(t.nanos, 0)
  FROM judged j LEFT JOIN taken t USING (account) WHERE NOT j.fits
