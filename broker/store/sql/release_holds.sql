-- Settles the holds of dead processes as released. $1: the processes; $2: how many at most. Skips holds being settled.
WITH gate AS MATERIALIZED (
    SELECT o.call_id, o.ledger_account_id, o.amount_nanos, o.created_at, o.budget_key_id FROM open_holds o
     WHERE o.process_id = ANY($1::integer[]) LIMIT $2::integer FOR UPDATE SKIP LOCKED
), locked AS MATERIALIZED (
    SELECT b.ledger_account_id AS account FROM balances b
     WHERE b.ledger_account_id = ANY(ARRAY(SELECT ledger_account_id FROM gate)) ORDER BY b.ledger_account_id FOR UPDATE
), found AS MATERIALIZED (
    SELECT g.* FROM gate g JOIN locked l ON l.account = g.ledger_account_id
), period AS MATERIALIZED (
    SELECT key_id, begins_at, kind FROM budget_periods
     WHERE key_id = ANY(ARRAY(SELECT budget_key_id FROM found))
       AND begins_at = ANY(ARRAY(SELECT p.begins_at FROM found f CROSS JOIN budget_periods_of(f.created_at) p))
     ORDER BY key_id, begins_at, kind FOR UPDATE
), ours AS MATERIALIZED (
    -- Where the key got its first budget since this statement began, its periods cannot be seen yet: another time.
    SELECT f.* FROM found f
     WHERE f.budget_key_id IS NULL
        OR (SELECT count(*) = 3 FROM period q JOIN budget_periods_of(f.created_at) p USING (begins_at, kind)
             WHERE q.key_id = f.budget_key_id)
), counted AS MATERIALIZED (
    SELECT o.budget_key_id AS key_id, p.begins_at, p.kind, sum(o.amount_nanos)::bigint AS nanos
      FROM ours o CROSS JOIN budget_periods_of(o.created_at) p WHERE o.budget_key_id IS NOT NULL GROUP BY 1, 2, 3
), closed AS (
    DELETE FROM open_holds WHERE call_id = ANY(ARRAY(SELECT call_id FROM ours))
), settled AS (
    INSERT INTO settlements (call_id, ledger_account_id, kind, hold_nanos, charge_nanos, held_at, settled_at)
    SELECT call_id, ledger_account_id, 'released', amount_nanos, 0, created_at, greatest(now(), created_at)
      FROM ours
), moved AS (
    UPDATE balances b SET held_nanos = b.held_nanos - d.nanos
      FROM (SELECT ledger_account_id, sum(amount_nanos)::bigint AS nanos FROM ours GROUP BY ledger_account_id) d
     WHERE b.ledger_account_id = d.ledger_account_id
), moved_too AS (
    UPDATE budget_periods b SET held_nanos = b.held_nanos - d.nanos,
           excess_nanos = least(b.excess_nanos, greatest(b.spent_nanos + b.held_nanos - d.nanos - b.limit_nanos, 0))
      FROM counted d
     WHERE b.key_id = d.key_id AND b.begins_at = d.begins_at AND b.kind = d.kind
)
SELECT count(*) FROM ours
