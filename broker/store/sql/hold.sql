-- Opens holds. $1: the holds as JSON, in order; $2: the process that asks; $3: the generation of budgets that it knows,
-- null where it does not matter: of another generation, all are refused, and so are those whose account has had a first
-- budget since this statement began; $4: how many times its amount an account must have left for a hold. Returns those
-- refused, by their place from 1, with what their account has left, null where there is no account; and, where a budget
-- stands in the way, its kind, limit, spent and held nanos. Spent and held are null for a period that is not open yet.
WITH asked AS MATERIALIZED (
    -- A broker whose clock is behind would have its holds taken for expired: each lasts from now on, by the clock here.
    SELECT call_id, account, key_id, amount_nanos, created_at, greatest(expires_at, now() + (expires_at - created_at))
               AS expires_at, n
      FROM ROWS FROM (json_to_recordset(convert_from($1::bytea, 'UTF8')::json) AS (
        call_id uuid, account uuid, key_id text, amount_nanos bigint, created_at timestamptz, expires_at timestamptz
    )) WITH ORDINALITY AS a(call_id, account, key_id, amount_nanos, created_at, expires_at, n)
), locked AS MATERIALIZED (
    SELECT ledger_account_id AS account, posted_nanos, held_nanos, budget_generation
      FROM balances WHERE ledger_account_id = ANY(ARRAY(SELECT account FROM asked))
     ORDER BY ledger_account_id FOR UPDATE
-- budgets {
), counting AS MATERIALIZED (
    SELECT key_id FROM budgets WHERE key_id = ANY(ARRAY(SELECT DISTINCT key_id FROM asked))
), counted AS MATERIALIZED (
    -- Reading `locked` keeps the order of locks: balances before budgets.
    SELECT a.n, counting.key_id, a.amount_nanos, p.begins_at, p.kind
      FROM counting JOIN asked a USING (key_id) JOIN locked USING (account) CROSS JOIN budget_periods_of(a.created_at) p
), period AS MATERIALIZED (
    SELECT key_id, begins_at, kind, limit_nanos, excess_nanos, spent_nanos, held_nanos
      FROM budget_periods WHERE key_id = ANY(ARRAY(SELECT key_id FROM counted))
                            AND begins_at = ANY(ARRAY(SELECT begins_at FROM counted))
     ORDER BY key_id, begins_at, kind FOR UPDATE
), weighed AS MATERIALIZED (
    SELECT c.*, p.limit_nanos, p.excess_nanos, p.spent_nanos, p.held_nanos,
           p.key_id IS NOT NULL AND coalesce(
               sum(c.amount_nanos) OVER (PARTITION BY c.key_id, c.begins_at, c.kind ORDER BY c.n)
                   <= p.limit_nanos - p.spent_nanos - p.held_nanos, true) AS fits
      FROM counted c LEFT JOIN period p USING (key_id, begins_at, kind)
), budgeted AS (
    SELECT n, bool_and(fits) AS fits FROM weighed GROUP BY n
-- }
), judged AS MATERIALIZED (
    SELECT a.*, l.posted_nanos, l.held_nanos,
-- budgets {
           w.fits AS budgeted, coalesce(w.fits, true) AND
-- } else {
           NULL::boolean AS budgeted,
-- }
           coalesce(
               sum(a.amount_nanos) OVER (PARTITION BY a.account ORDER BY a.n) * $4::integer
                   <= l.posted_nanos - l.held_nanos, false)
               AND coalesce((SELECT generation FROM budget_generation WHERE one) = $3::bigint, true)
               AND coalesce(coalesce($3::bigint, (SELECT generation FROM budget_generation WHERE one)) >= l.budget_generation,
                            true) AS fits
      FROM asked a LEFT JOIN locked l USING (account)
-- budgets {
      LEFT JOIN budgeted w USING (n)
-- }
), kept AS (
    INSERT INTO holds (call_id, ledger_account_id, key_id, amount_nanos, created_at, expires_at, budgeted)
    SELECT call_id, account, key_id, amount_nanos, created_at, expires_at, budgeted FROM judged WHERE fits
), opened AS (
    INSERT INTO open_holds (call_id, ledger_account_id, process_id, amount_nanos, created_at, expires_at, budget_key_id)
    SELECT call_id, account, $2::integer, amount_nanos, created_at, expires_at, CASE WHEN budgeted THEN key_id END
      FROM judged WHERE fits
), taken AS MATERIALIZED (
    SELECT account, posted_nanos, held_nanos, sum(amount_nanos)::bigint AS nanos
      FROM judged WHERE fits GROUP BY 1, 2, 3
), moved AS (
    -- An update meets the row as the snapshot has it first, checks its constraints on that, and only then follows to the
    -- newest: so it must say in full what was locked, and add to that. The list spares it reading all of some hundred
    -- balances, which the planner holds for as cheap.
    UPDATE balances b SET posted_nanos = t.posted_nanos, held_nanos = t.held_nanos + t.nanos
      FROM taken t WHERE b.ledger_account_id = t.account AND b.ledger_account_id = ANY(ARRAY(SELECT account FROM taken))
-- budgets {
), used AS MATERIALIZED (
    SELECT w.key_id, w.begins_at, w.kind, w.limit_nanos, w.excess_nanos, w.spent_nanos, w.held_nanos,
           sum(w.amount_nanos)::bigint AS nanos
      FROM weighed w JOIN judged j USING (n) WHERE j.fits GROUP BY 1, 2, 3, 4, 5, 6, 7
), moved_too AS (
    UPDATE budget_periods b SET limit_nanos = u.limit_nanos, excess_nanos = u.excess_nanos, spent_nanos = u.spent_nanos,
           held_nanos = u.held_nanos + u.nanos
      FROM used u WHERE b.key_id = u.key_id AND b.begins_at = u.begins_at AND b.kind = u.kind
), tight AS (
    -- The budget that refuses a hold for good before one that only open holds fill.
    SELECT DISTINCT ON (w.n) w.n, w.kind, w.limit_nanos, w.spent_nanos, w.held_nanos + coalesce(u.nanos, 0) AS held_nanos
      FROM weighed w LEFT JOIN used u USING (key_id, begins_at, kind)
     WHERE w.spent_nanos IS NULL OR w.limit_nanos - w.spent_nanos - w.held_nanos - coalesce(u.nanos, 0) < w.amount_nanos
     ORDER BY w.n, w.spent_nanos IS NOT NULL, w.limit_nanos - w.spent_nanos >= w.amount_nanos,
              w.limit_nanos - w.spent_nanos - w.held_nanos - coalesce(u.nanos, 0)
-- }
)
SELECT j.n::integer, j.posted_nanos - j.held_nanos - coalesce(t.nanos, 0),
-- budgets {
       s.kind, s.limit_nanos, s.spent_nanos, s.held_nanos
  FROM judged j LEFT JOIN taken t USING (account) LEFT JOIN tight s USING (n)
-- } else {
       NULL::text, NULL::bigint, NULL::bigint, NULL::bigint
  FROM judged j LEFT JOIN taken t USING (account)
-- }
 WHERE NOT j.fits
