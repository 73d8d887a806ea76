-- Budgets of keys by UTC day, UTC month and in total.

-- What a key may spend; null is no limit. A key without a row is not counted, one with a row is counted for ever.
CREATE TABLE budgets (
    key_id          text PRIMARY KEY REFERENCES keys,
    day_nanos       bigint CHECK (day_nanos >= 0),
    month_nanos     bigint CHECK (month_nanos >= 0),
    total_nanos     bigint CHECK (total_nanos >= 0),
    created_at      timestamptz NOT NULL
);

-- What a key has spent and held in one period, by the time at which the holds were admitted. All three kinds are counted
-- for each hold, limited or not, so that the months are the sum of their days and the total is the sum of the months.
-- `carried_nanos`, a part of what is spent, was spent before the key had its first budget. `excess_nanos` is what stood
-- above the limit when the limit was lowered; it shrinks with what is given back.
CREATE TABLE budget_periods (
    key_id          text NOT NULL REFERENCES budgets,
    kind            text NOT NULL CHECK (kind IN ('day', 'month', 'total')),
    begins_at       timestamptz NOT NULL,
    limit_nanos     bigint CHECK (limit_nanos >= 0),
    excess_nanos    bigint NOT NULL DEFAULT 0 CHECK (excess_nanos >= 0),
    carried_nanos   bigint NOT NULL DEFAULT 0 CHECK (carried_nanos >= 0),
    spent_nanos     bigint NOT NULL DEFAULT 0 CHECK (spent_nanos >= carried_nanos),
    held_nanos      bigint NOT NULL DEFAULT 0 CHECK (held_nanos >= 0),
    PRIMARY KEY (key_id, kind, begins_at),
    CONSTRAINT within_limit CHECK (spent_nanos + held_nanos - excess_nanos <= limit_nanos)
) WITH (fillfactor = 50);
