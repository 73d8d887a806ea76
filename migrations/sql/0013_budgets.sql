-- Budgets count what was under way when they began, and give back what is refunded. What is added to the standing tables
-- is a constant, which rewrites no row.

-- The newest of the generations in which a key of the account got its first budget. Who opens a hold has locked this row,
-- and so knows of a first budget that his statement began too early to see.
ALTER TABLE balances ADD COLUMN budget_generation bigint NOT NULL DEFAULT 0;

-- Holds that were open when their key got its first budget; they count in it like those admitted later.
CREATE TABLE adopted_holds (
    call_id     uuid PRIMARY KEY,
    key_id      text COLLATE "C" NOT NULL REFERENCES budgets,
    created_at  timestamptz NOT NULL
);
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON adopted_holds FOR EACH ROW EXECUTE FUNCTION refuse_change();
SELECT refuse_truncation();

-- What went back, in the same period, of calls that were admitted in it: no part of what is spent any more.
ALTER TABLE budget_periods ADD COLUMN refunded_nanos bigint NOT NULL DEFAULT 0
    CONSTRAINT refunded_nanos_check CHECK (refunded_nanos >= 0);

CREATE VIEW budgeted_holds AS
    SELECT call_id, key_id, created_at FROM holds WHERE budgeted
    UNION ALL SELECT call_id, key_id, created_at FROM adopted_holds;

CREATE OR REPLACE VIEW invariant_budget_day_is_its_charges AS
    SELECT key_id, begins_at, b.counted_nanos, d.charged_nanos
      FROM (SELECT key_id, begins_at, spent_nanos - carried_nanos + refunded_nanos AS counted_nanos FROM budget_periods
             WHERE kind = 'day' AND begins_at >= (SELECT sealed_before FROM last_seal)) b
      FULL JOIN (SELECT h.key_id, date_trunc('day', h.created_at, 'UTC') AS begins_at, sum(s.charge_nanos) AS charged_nanos
                   FROM budgeted_holds h JOIN settlements s ON s.call_id = h.call_id AND s.settled_at >= h.created_at
                  WHERE h.created_at >= (SELECT sealed_before FROM last_seal)
                    AND s.settled_at >= (SELECT sealed_before FROM last_seal)
                    AND date_trunc('day', h.created_at, 'UTC') >= (SELECT sealed_before FROM last_seal)
                  GROUP BY 1, 2) d USING (key_id, begins_at)
     WHERE coalesce(b.counted_nanos, 0) <> coalesce(d.charged_nanos, 0);

CREATE OR REPLACE VIEW invariant_budget_periods_sum_up AS
    SELECT key_id, date_trunc('month', begins_at, 'UTC') AS begins_at, 'month' AS kind,
           sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month') AS counted_nanos,
           sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'day') AS parts_nanos
      FROM budget_periods
     WHERE kind <> 'total' AND begins_at >= (SELECT date_trunc('month', sealed_before, 'UTC') FROM last_seal)
     GROUP BY 1, 2 HAVING sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month')
         IS DISTINCT FROM sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'day')
    UNION ALL
    SELECT key_id, NULL, 'total', sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'total'),
           sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month')
      FROM budget_periods WHERE kind <> 'day'
     GROUP BY 1 HAVING sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'total')
         IS DISTINCT FROM sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month');

CREATE OR REPLACE VIEW replay_budget_day_is_its_charges AS
    SELECT key_id, begins_at, b.counted_nanos, d.charged_nanos
      FROM (SELECT key_id, begins_at, spent_nanos - carried_nanos + refunded_nanos AS counted_nanos
              FROM budget_periods WHERE kind = 'day') b
      FULL JOIN (SELECT h.key_id, date_trunc('day', h.created_at, 'UTC') AS begins_at, sum(s.charge_nanos) AS charged_nanos
                   FROM budgeted_holds h JOIN settlements s ON s.call_id = h.call_id
                  GROUP BY 1, 2) d USING (key_id, begins_at)
     WHERE coalesce(b.counted_nanos, 0) <> coalesce(d.charged_nanos, 0);

-- The key in whose budgets a refunded call counts; null where it counts in none, and in notes of before.
ALTER TABLE credit_notes ADD COLUMN budget_key_id text COLLATE "C";

-- What notes gave back in the very periods in which their calls were admitted.
CREATE VIEW budget_refunds AS
    SELECT n.budget_key_id AS key_id, p.begins_at, p.kind, n.amount_nanos, n.created_at
      FROM credit_notes n JOIN settlements s ON s.call_id = n.call_id
      CROSS JOIN budget_periods_of(s.held_at) p
      JOIN budget_periods_of(n.created_at) q ON q.begins_at = p.begins_at AND q.kind = p.kind
     WHERE n.budget_key_id IS NOT NULL;

CREATE VIEW invariant_budget_day_is_refunded_by_notes AS
    SELECT key_id, begins_at, b.refunded_nanos, n.noted_nanos
      FROM (SELECT key_id, begins_at, refunded_nanos FROM budget_periods
             WHERE kind = 'day' AND refunded_nanos <> 0 AND begins_at >= (SELECT sealed_before FROM last_seal)) b
      FULL JOIN (SELECT key_id, begins_at, sum(amount_nanos) AS noted_nanos FROM budget_refunds
                  WHERE kind = 'day' AND begins_at >= (SELECT sealed_before FROM last_seal)
                    AND created_at >= (SELECT sealed_before FROM last_seal) GROUP BY 1, 2) n USING (key_id, begins_at)
     WHERE b.refunded_nanos IS DISTINCT FROM n.noted_nanos;

CREATE VIEW replay_budget_is_refunded_by_notes AS
    SELECT key_id, begins_at, kind, b.refunded_nanos, n.noted_nanos
      FROM (SELECT key_id, begins_at, kind, refunded_nanos FROM budget_periods WHERE refunded_nanos <> 0) b
      FULL JOIN (SELECT key_id, begins_at, kind, sum(amount_nanos) AS noted_nanos FROM budget_refunds
                  GROUP BY 1, 2, 3) n USING (key_id, begins_at, kind)
     WHERE b.refunded_nanos IS DISTINCT FROM n.noted_nanos;
