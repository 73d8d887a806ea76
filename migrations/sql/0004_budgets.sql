-- Budgets of keys by UTC day, UTC month and in total.

-- What a key may spend; null is no limit. A key without a row is not counted, one with a row is counted for ever.
-- `generation` says when the key got its first budget.
CREATE TABLE budgets (
    key_id          text COLLATE "C" PRIMARY KEY REFERENCES keys,
    day_nanos       bigint CHECK (day_nanos >= 0),
    month_nanos     bigint CHECK (month_nanos >= 0),
    total_nanos     bigint CHECK (total_nanos >= 0),
    generation      bigint NOT NULL,
    created_at      timestamptz NOT NULL
);
CREATE INDEX budgets_since ON budgets (generation);

-- Counts the keys that got a first budget. The statement that opens holds compares it with what its process knows, so
-- that keys without budgets cost nothing and yet a first budget works at once.
CREATE TABLE budget_generation (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    generation  bigint NOT NULL
);
INSERT INTO budget_generation (generation) VALUES (0);

-- What a key has spent and held in one period, by the time at which the holds were admitted. All three kinds are counted
-- for each hold, limited or not, so that the months are the sum of their days and the total is the sum of the months.
-- `carried_nanos`, a part of what is spent, was spent before the key had its first budget. `excess_nanos` is what stood
-- above the limit when the limit was lowered; it shrinks with what is given back.
CREATE TABLE budget_periods (
    key_id          text COLLATE "C" NOT NULL REFERENCES budgets,
    begins_at       timestamptz NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('day', 'month', 'total')),
    limit_nanos     bigint CHECK (limit_nanos >= 0),
    excess_nanos    bigint NOT NULL DEFAULT 0 CHECK (excess_nanos >= 0),
    carried_nanos   bigint NOT NULL DEFAULT 0 CHECK (carried_nanos >= 0),
    spent_nanos     bigint NOT NULL DEFAULT 0 CHECK (spent_nanos >= carried_nanos),
    held_nanos      bigint NOT NULL DEFAULT 0 CHECK (held_nanos >= 0),
    PRIMARY KEY (key_id, begins_at, kind),
    CONSTRAINT within_limit CHECK (spent_nanos + held_nanos - excess_nanos <= limit_nanos)
) WITH (fillfactor = 50);

-- The periods in which a hold counts.
CREATE FUNCTION budget_periods_of(created_at timestamptz) RETURNS TABLE (begins_at timestamptz, kind text)
LANGUAGE sql STABLE AS $$
    VALUES (date_trunc('day', created_at, 'UTC'), 'day'), (date_trunc('month', created_at, 'UTC'), 'month'),
           ('-infinity'::timestamptz, 'total')
$$;

-- Whether a hold was counted; null, which takes no room, where its key had no budgets.
ALTER TABLE holds ADD COLUMN budgeted boolean;
ALTER TABLE open_holds ADD COLUMN budget_key_id text COLLATE "C";

-- Since when a process holds its lease without a break. A hold of a process that lives does not expire as others do.
ALTER TABLE broker_processes ADD COLUMN leased_at timestamptz;

CREATE VIEW invariant_budget_held_is_open_holds AS
    SELECT key_id, begins_at, kind, b.held_nanos, o.open_nanos
      FROM (SELECT key_id, begins_at, kind, held_nanos FROM budget_periods WHERE held_nanos <> 0) b
      FULL JOIN (SELECT h.budget_key_id AS key_id, p.begins_at, p.kind, sum(h.amount_nanos) AS open_nanos
                   FROM open_holds h CROSS JOIN budget_periods_of(h.created_at) p
                  WHERE h.budget_key_id IS NOT NULL GROUP BY 1, 2, 3) o USING (key_id, begins_at, kind)
     WHERE b.held_nanos IS DISTINCT FROM o.open_nanos;

CREATE VIEW invariant_budget_day_is_its_charges AS
    SELECT key_id, begins_at, b.counted_nanos, d.charged_nanos
      FROM (SELECT key_id, begins_at, spent_nanos - carried_nanos AS counted_nanos FROM budget_periods
             WHERE kind = 'day' AND begins_at >= (SELECT sealed_before FROM last_seal)) b
      FULL JOIN (SELECT h.key_id, date_trunc('day', h.created_at, 'UTC') AS begins_at, sum(s.charge_nanos) AS charged_nanos
                   FROM holds h JOIN settlements s ON s.call_id = h.call_id AND s.settled_at >= h.created_at
                  WHERE h.budgeted AND h.created_at >= (SELECT sealed_before FROM last_seal)
                    AND s.settled_at >= (SELECT sealed_before FROM last_seal)
                    AND date_trunc('day', h.created_at, 'UTC') >= (SELECT sealed_before FROM last_seal)
                  GROUP BY 1, 2) d USING (key_id, begins_at)
     WHERE coalesce(b.counted_nanos, 0) <> coalesce(d.charged_nanos, 0);

CREATE VIEW invariant_budget_periods_sum_up AS
    SELECT key_id, date_trunc('month', begins_at, 'UTC') AS begins_at, 'month' AS kind,
           sum(spent_nanos - carried_nanos) FILTER (WHERE kind = 'month') AS counted_nanos,
           sum(spent_nanos - carried_nanos) FILTER (WHERE kind = 'day') AS parts_nanos
      FROM budget_periods
     WHERE kind <> 'total' AND begins_at >= (SELECT date_trunc('month', sealed_before, 'UTC') FROM last_seal)
     GROUP BY 1, 2 HAVING sum(spent_nanos - carried_nanos) FILTER (WHERE kind = 'month')
         IS DISTINCT FROM sum(spent_nanos - carried_nanos) FILTER (WHERE kind = 'day')
    UNION ALL
    SELECT key_id, NULL, 'total', sum(spent_nanos - carried_nanos) FILTER (WHERE kind = 'total'),
           sum(spent_nanos - carried_nanos) FILTER (WHERE kind = 'month')
      FROM budget_periods WHERE kind <> 'day'
     GROUP BY 1 HAVING sum(spent_nanos - carried_nanos) FILTER (WHERE kind = 'total')
         IS DISTINCT FROM sum(spent_nanos - carried_nanos) FILTER (WHERE kind = 'month');

CREATE VIEW replay_budget_day_is_its_charges AS
    SELECT key_id, begins_at, b.counted_nanos, d.charged_nanos
      FROM (SELECT key_id, begins_at, spent_nanos - carried_nanos AS counted_nanos
              FROM budget_periods WHERE kind = 'day') b
      FULL JOIN (SELECT h.key_id, date_trunc('day', h.created_at, 'UTC') AS begins_at, sum(s.charge_nanos) AS charged_nanos
                   FROM holds h JOIN settlements s ON s.call_id = h.call_id
                  WHERE h.budgeted GROUP BY 1, 2) d USING (key_id, begins_at)
     WHERE coalesce(b.counted_nanos, 0) <> coalesce(d.charged_nanos, 0);

-- Statements read by account and period, checks and jobs by period alone; without these each reads whole partitions. On
-- the hot path they cost PostgreSQL 5 % and 1 % of its time for a hold and a capture. An index on the parent alone is
-- made in a moment, and partitions made later have it from their beginning. Of the partitions that stand, the small ones
-- get it here; the others get it from a job of the worker, which builds it without keeping anybody waiting.
CREATE INDEX settled_by_account ON ONLY settlements (ledger_account_id, settled_at);
CREATE INDEX settled_by_time ON ONLY settlements USING brin (settled_at) WITH (autosummarize = on);
CREATE INDEX earned_by_account ON ONLY settlement_lines (payee_id, settled_at);
CREATE INDEX earned_by_time ON ONLY settlement_lines USING brin (settled_at) WITH (autosummarize = on);

CREATE VIEW missing_indexes AS
    SELECT part.relname || '_' || parent.relname AS name, pg_relation_size(part.oid) AS size_bytes,
           format('CREATE INDEX CONCURRENTLY %I ON %s', part.relname || '_' || parent.relname, part.oid::regclass)
               || substring(pg_get_indexdef(parent.oid) FROM ' USING .*') AS build,
           format('ALTER INDEX %s ATTACH PARTITION %I', parent.oid::regclass, part.relname || '_' || parent.relname) AS attach
      FROM pg_index i
      JOIN pg_class parent ON parent.oid = i.indexrelid AND parent.relkind = 'I'
      JOIN pg_inherits h ON h.inhparent = i.indrelid
      JOIN pg_class part ON part.oid = h.inhrelid
     WHERE NOT EXISTS (SELECT FROM pg_inherits hi JOIN pg_index c ON c.indexrelid = hi.inhrelid
                        WHERE hi.inhparent = parent.oid AND c.indrelid = part.oid);

DO $$
DECLARE
    missing record;
BEGIN
    FOR missing IN SELECT * FROM missing_indexes WHERE size_bytes < 64 * 1024 * 1024 LOOP
        EXECUTE replace(missing.build, 'CONCURRENTLY ', '');
        EXECUTE missing.attach;
    END LOOP;
END $$;
