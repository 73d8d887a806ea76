-- Opens the periods of budgets in which holds count. $1: their keys; $2: when they were admitted. A period that is open
-- is left as it is. Locking a key's terms keeps out a change of them.
WITH terms AS MATERIALIZED (
    SELECT * FROM budgets WHERE key_id = ANY($1::text[]) ORDER BY key_id FOR UPDATE
)
INSERT INTO budget_periods (key_id, begins_at, kind, limit_nanos)
SELECT DISTINCT t.key_id, p.begins_at, p.kind,
       CASE p.kind WHEN 'day' THEN t.day_nanos WHEN 'month' THEN t.month_nanos ELSE t.total_nanos END
  FROM unnest($1::text[], $2::timestamptz[]) AS h(key_id, created_at)
  JOIN terms t USING (key_id) CROSS JOIN budget_periods_of(h.created_at) p
    ON CONFLICT DO NOTHING
