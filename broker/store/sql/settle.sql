-- Closes holds. Three arrays of JSON with a row for each line, and one for a settlement that has none: $1: its settlement,
-- said again for each of its lines, `n` being its place from 1; $2: the line; $3: the call record, with the settlement's
-- first row. What a row has not is an empty object. $4: the take account; $5: whether holds that count in budgets are
-- settled. Returns the places of those not settled, each with a verdict: 0 the hold is gone, 2 a ledger account is missing,
-- 3 the lines do not sum to the charge, 4 it counts in budgets that this statement does not know or cannot see yet. Side by
-- side the arrays need not be joined: each step of a statement costs the server time, however few rows it has.
WITH asked AS MATERIALIZED (
    SELECT * FROM ROWS FROM (
        json_to_recordset(convert_from($1::bytea, 'UTF8')::json) AS (
            n integer, call_id uuid, kind text, due_nanos bigint, settled_at timestamptz),
        json_to_recordset(convert_from($2::bytea, 'UTF8')::json) AS (
            attempt smallint, endpoint_id uuid, payee uuid, line_tokens_in bigint, line_tokens_out bigint,
            rate_in_micros bigint, rate_out_micros bigint, rate_call_nanos bigint, line_price_version bigint,
            line_nanos bigint, take_nanos bigint, earnings_nanos bigint),
        json_to_recordset(convert_from($3::bytea, 'UTF8')::json) AS (
            id uuid, created_at timestamptz, account_id uuid, key_id text, task text, model text, domain text,
            stream boolean, status smallint, code text, endpoint_number integer, price_version bigint, hold_nanos bigint,
            charge_nanos bigint, tokens_in bigint, tokens_out bigint, ttft_ms real, duration_ms real, task_label text,
            session_id text, labels_json text, story text, answer_tokens_out bigint)
    ) AS a
), gate AS MATERIALIZED (
    SELECT o.call_id, o.ledger_account_id AS payer, o.amount_nanos, o.created_at, o.budget_key_id
      FROM open_holds o WHERE o.call_id = ANY(ARRAY(SELECT call_id FROM asked)) ORDER BY o.call_id FOR UPDATE
), locked AS MATERIALIZED (
    SELECT b.ledger_account_id AS account FROM balances b
     WHERE b.ledger_account_id = ANY(ARRAY(SELECT payer FROM gate) || ARRAY(SELECT payee FROM asked) || $4::uuid)
     ORDER BY b.ledger_account_id FOR UPDATE
-- budgets {
), counted AS MATERIALIZED (
    -- Reading `locked` keeps the order of locks: balances before budgets.
    SELECT g.call_id, g.budget_key_id AS key_id, p.begins_at, p.kind
      FROM gate g JOIN locked l ON l.account = g.payer CROSS JOIN budget_periods_of(g.created_at) p
     WHERE g.budget_key_id IS NOT NULL
), period AS MATERIALIZED (
    SELECT key_id, begins_at, kind FROM budget_periods
     WHERE key_id = ANY(ARRAY(SELECT key_id FROM counted)) AND begins_at = ANY(ARRAY(SELECT begins_at FROM counted))
     ORDER BY key_id, begins_at, kind FOR UPDATE
), early AS (
    -- The key got its first budget since this statement began, which cannot see its periods yet.
    SELECT c.call_id FROM counted c LEFT JOIN period p USING (key_id, begins_at, kind) WHERE p.kind IS NULL
-- }
), judged AS MATERIALIZED (
    SELECT a.*, g.payer, g.amount_nanos, g.created_at AS held_at, row_number() OVER its_lines = 1 AS once,
           -- A settlement kept back while the database was away is dated late enough to fall behind no seal.
           greatest(a.settled_at, g.created_at, now() - interval '30 minutes') AS dated_at,
           CASE WHEN g.call_id IS NULL THEN 0
                WHEN g.budget_key_id IS NOT NULL AND NOT $5::boolean THEN 4
-- budgets {
                WHEN g.call_id IN (SELECT call_id FROM early) THEN 4
-- }
                WHEN g.payer <> ALL(ARRAY(SELECT account FROM locked)) OR NOT bool_and(
                    a.payee IS NULL OR ARRAY[a.payee, $4::uuid] <@ ARRAY(SELECT account FROM locked)) OVER its_lines THEN 2
                WHEN a.due_nanos <> coalesce(sum(a.line_nanos) OVER its_lines, 0) THEN 3
                ELSE 1 END AS verdict
      FROM asked a
      LEFT JOIN gate g ON g.call_id = a.call_id
    WINDOW its_lines AS (PARTITION BY a.n)
), ours AS NOT MATERIALIZED (
    SELECT * FROM judged WHERE verdict = 1
), closed AS (
    DELETE FROM open_holds WHERE call_id = ANY(ARRAY(SELECT call_id FROM ours))
), settled AS (
    INSERT INTO settlements (call_id, ledger_account_id, kind, hold_nanos, charge_nanos, held_at, settled_at)
    SELECT call_id, payer, kind, amount_nanos, due_nanos, held_at, dated_at FROM ours WHERE once
), lined AS (
    INSERT INTO settlement_lines (call_id, attempt, settled_at, endpoint_id, payer_id, payee_id, take_id, tokens_in,
        tokens_out, rate_in_micros, rate_out_micros, rate_call_nanos, price_version, charge_nanos, take_nanos,
        earnings_nanos)
    SELECT call_id, attempt, dated_at, endpoint_id, payer, payee, $4::uuid, line_tokens_in, line_tokens_out,
           rate_in_micros, rate_out_micros, rate_call_nanos, line_price_version, line_nanos, take_nanos, earnings_nanos
      FROM ours WHERE attempt IS NOT NULL
), recorded AS (
    INSERT INTO calls (id, created_at, account_id, key_id, task, model, domain, stream, status, code, endpoint_number,
        price_version, hold_nanos, charge_nanos, tokens_in, tokens_out, ttft_ms, duration_ms, task_label, session_id,
        labels, story, answer_tokens_out)
    SELECT id, created_at, account_id, key_id, task, model, domain, stream, status, code, endpoint_number,
           price_version, hold_nanos, charge_nanos, tokens_in, tokens_out, ttft_ms, duration_ms, task_label, session_id,
           labels_json::jsonb, decode(story, 'base64'), answer_tokens_out
      FROM ours WHERE id = call_id
), delta AS (
    SELECT payer AS account, -due_nanos AS posted_nanos, -amount_nanos AS held_nanos FROM ours WHERE once
    UNION ALL SELECT payee, earnings_nanos, 0 FROM ours WHERE attempt IS NOT NULL
    UNION ALL SELECT $4::uuid, take_nanos, 0 FROM ours WHERE attempt IS NOT NULL
), moved AS (
    UPDATE balances b SET posted_nanos = b.posted_nanos + d.posted_nanos, held_nanos = b.held_nanos + d.held_nanos
      FROM (SELECT account, sum(posted_nanos)::bigint AS posted_nanos, sum(held_nanos)::bigint AS held_nanos
              FROM delta GROUP BY account) d
     WHERE b.ledger_account_id = d.account
-- budgets {
), moved_too AS (
    UPDATE budget_periods b SET spent_nanos = b.spent_nanos + d.spent_nanos, held_nanos = b.held_nanos - d.held_nanos,
           excess_nanos = least(b.excess_nanos, greatest(
               b.spent_nanos + d.spent_nanos + b.held_nanos - d.held_nanos - b.limit_nanos, 0))
      FROM (SELECT c.key_id, c.begins_at, c.kind, sum(due_nanos)::bigint AS spent_nanos,
                   sum(amount_nanos)::bigint AS held_nanos
              FROM ours JOIN counted c USING (call_id) WHERE once GROUP BY 1, 2, 3) d
     WHERE b.key_id = d.key_id AND b.begins_at = d.begins_at AND b.kind = d.kind
-- }
)
SELECT n, verdict FROM judged WHERE verdict <> 1 AND once
