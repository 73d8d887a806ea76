-- A broker with many calls seals more often than once a day, so that the checks of each minute read less. Earnings mature by the
-- seals of days alone: by each of an hour they would move in as many transfers, and tell of each.
ALTER TABLE seal_periods ADD COLUMN extra boolean NOT NULL DEFAULT false;

CREATE OR REPLACE VIEW pending_at_seals AS
    SELECT s.ledger_account_id, s.sealed_before,
           s.posted_nanos - coalesce((
               SELECT sum(t.amount_nanos) FROM transfers t
                WHERE t.debit_id = s.ledger_account_id AND t.created_at >= s.sealed_before
                  AND (t.kind = 'maturity' OR (t.call_id IS NOT NULL AND (
                        -- An aggregate is looked up call by call; NOT EXISTS may hash all lines since the seal.
                        SELECT count(*) FROM settlement_lines l
                         WHERE l.call_id = t.call_id AND l.payee_id = t.debit_id
                           AND l.settled_at >= s.sealed_before) = 0))), 0)::bigint AS pending_nanos
      FROM seals s JOIN ledger_accounts a ON a.id = s.ledger_account_id AND a.kind = 'earnings'
      JOIN seal_periods p ON p.sealed_before = s.sealed_before AND NOT p.extra;

-- Lines are summed by those whom they concern first, which reads them once and not three times. What was entered for an account
-- without a balance has no `posted_nanos` here; it had a view of its own, which read them three times more.
DROP VIEW invariant_entry_has_an_account;
CREATE OR REPLACE VIEW invariant_balance_is_its_entries AS
    WITH traded AS (
        SELECT payer_id, payee_id, take_id, sum(charge_nanos) AS charge_nanos, sum(earnings_nanos) AS earnings_nanos,
               sum(take_nanos) AS take_nanos
          FROM settlement_lines WHERE settled_at >= sealed_before() GROUP BY 1, 2, 3
    ), entered AS (
        SELECT payer_id AS ledger_account_id, -charge_nanos AS amount_nanos FROM traded
        UNION ALL SELECT payee_id, earnings_nanos FROM traded
        UNION ALL SELECT take_id, take_nanos FROM traded
        UNION ALL SELECT debit_id, -amount_nanos FROM transfers WHERE created_at >= sealed_before()
        UNION ALL SELECT credit_id, amount_nanos FROM transfers WHERE created_at >= sealed_before()
    )
    SELECT coalesce(b.ledger_account_id, e.ledger_account_id) AS ledger_account_id, b.posted_nanos,
           coalesce(s.posted_nanos, 0) + coalesce(e.folded_nanos, 0) AS folded_nanos
      FROM balances b
      LEFT JOIN seals s ON s.ledger_account_id = b.ledger_account_id AND s.sealed_before = sealed_before()
      FULL JOIN (SELECT ledger_account_id, sum(amount_nanos) AS folded_nanos FROM entered GROUP BY 1) e
             ON e.ledger_account_id = b.ledger_account_id
     WHERE b.posted_nanos IS DISTINCT FROM coalesce(s.posted_nanos, 0) + coalesce(e.folded_nanos, 0);

-- Holds and settlements meet once. What is left without its other half is little, and looked up one by one: holds that are open,
-- and settlements of holds from before the seal.
CREATE OR REPLACE VIEW invariant_hold_is_open_or_settled AS
    SELECT g.call_id, 0::bigint AS open, (g.created_at IS NULL)::integer::bigint AS settled
      FROM (SELECT coalesce(h.call_id, s.call_id) AS call_id, h.created_at, h.amount_nanos, s.held_at, s.hold_nanos
              FROM (SELECT call_id, created_at, amount_nanos FROM holds WHERE created_at >= sealed_before()) h
              FULL JOIN (SELECT call_id, held_at, hold_nanos FROM settlements WHERE settled_at >= sealed_before()) s
                     ON s.call_id = h.call_id AND s.held_at = h.created_at AND s.hold_nanos = h.amount_nanos
             WHERE h.call_id IS NULL OR s.call_id IS NULL) g
     WHERE 0 = CASE WHEN g.created_at IS NULL
        -- Aggregates are looked up one by one; NOT EXISTS may hash all holds there are.
        THEN (SELECT count(*) FROM holds h
               WHERE h.call_id = g.call_id AND h.created_at = g.held_at AND h.amount_nanos = g.hold_nanos)
        ELSE (SELECT count(*) FROM open_holds o WHERE o.call_id = g.call_id) END
    UNION ALL
    SELECT o.call_id, 1, (SELECT count(*) FROM settlements s WHERE s.call_id = o.call_id AND s.settled_at >= sealed_before())
      FROM open_holds o
     WHERE (SELECT count(*) FROM settlements s WHERE s.call_id = o.call_id AND s.settled_at >= sealed_before()) <> 0
        OR (SELECT count(*) FROM holds h WHERE h.call_id = o.call_id AND h.created_at = o.created_at
                                           AND h.amount_nanos = o.amount_nanos) = 0
    UNION ALL
    SELECT call_id, 0, count(*) FROM settlements WHERE settled_at >= sealed_before() GROUP BY call_id HAVING count(*) > 1;

-- The lines of a settlement are dated as it is.
CREATE OR REPLACE VIEW invariant_lines_sum_to_charge AS
    SELECT coalesce(s.call_id, l.call_id) AS call_id, coalesce(s.charge_nanos, 0) AS charge_nanos,
           coalesce(l.lines_nanos, 0) AS lines_nanos
      FROM (SELECT call_id, settled_at, charge_nanos FROM settlements WHERE settled_at >= sealed_before()) s
      FULL JOIN (SELECT call_id, settled_at, sum(charge_nanos) AS lines_nanos FROM settlement_lines
                  WHERE settled_at >= sealed_before() GROUP BY call_id, settled_at) l
             ON l.call_id = s.call_id AND l.settled_at = s.settled_at
     WHERE coalesce(s.charge_nanos, 0) <> coalesce(l.lines_nanos, 0);

-- A budget's day is counted from its beginning on, however late in it the last seal was.
CREATE OR REPLACE VIEW invariant_budget_day_is_its_charges AS
    SELECT key_id, begins_at, b.counted_nanos, d.charged_nanos
      FROM (SELECT key_id, begins_at, spent_nanos - carried_nanos + refunded_nanos AS counted_nanos FROM budget_periods
             WHERE kind = 'day' AND begins_at >= date_trunc('day', sealed_before(), 'UTC')) b
      FULL JOIN (SELECT h.key_id, date_trunc('day', h.created_at, 'UTC') AS begins_at, sum(s.charge_nanos) AS charged_nanos
                   FROM budgeted_holds h JOIN settlements s ON s.call_id = h.call_id AND s.settled_at >= h.created_at
                  WHERE h.created_at >= date_trunc('day', sealed_before(), 'UTC')
                    AND s.settled_at >= date_trunc('day', sealed_before(), 'UTC')
                  GROUP BY 1, 2) d USING (key_id, begins_at)
     WHERE coalesce(b.counted_nanos, 0) <> coalesce(d.charged_nanos, 0);

CREATE OR REPLACE VIEW invariant_budget_day_is_refunded_by_notes AS
    SELECT key_id, begins_at, b.refunded_nanos, n.noted_nanos
      FROM (SELECT key_id, begins_at, refunded_nanos FROM budget_periods
             WHERE kind = 'day' AND refunded_nanos <> 0 AND begins_at >= date_trunc('day', sealed_before(), 'UTC')) b
      FULL JOIN (SELECT key_id, begins_at, sum(amount_nanos) AS noted_nanos FROM budget_refunds
                  WHERE kind = 'day' AND begins_at >= date_trunc('day', sealed_before(), 'UTC')
                    AND created_at >= date_trunc('day', sealed_before(), 'UTC') GROUP BY 1, 2) n USING (key_id, begins_at)
     WHERE b.refunded_nanos IS DISTINCT FROM n.noted_nanos;
