-- A seal has a row for each account that moved since the seal before it: what an account had at a seal is in its newest row of
-- then or before. With a row for each account, 100,000 of which 1,000 move filled 80 GB a year on a busy broker. A worker of
-- before would take an account without a row for an empty one: it knows this column by its former name, so that its seal is
-- refused, and made by the next one.
ALTER TABLE seal_periods RENAME COLUMN extra TO for_checks;

CREATE OR REPLACE VIEW pending_at_seals AS
    SELECT a.id AS ledger_account_id, p.sealed_before,
           s.posted_nanos - coalesce((
               SELECT sum(t.amount_nanos) FROM transfers t
                WHERE t.debit_id = a.id AND t.created_at >= p.sealed_before
                  AND (t.kind = 'maturity' OR (t.call_id IS NOT NULL AND (
                        -- An aggregate is looked up call by call; NOT EXISTS may hash all lines since the seal.
                        SELECT count(*) FROM settlement_lines l
                         WHERE l.call_id = t.call_id AND l.payee_id = t.debit_id
                           AND l.settled_at >= p.sealed_before) = 0))), 0)::bigint AS pending_nanos
      FROM ledger_accounts a CROSS JOIN seal_periods p
      CROSS JOIN LATERAL (SELECT posted_nanos FROM seals s
                           WHERE s.ledger_account_id = a.id AND s.sealed_before <= p.sealed_before
                           ORDER BY s.sealed_before DESC LIMIT 1) s
     WHERE a.kind = 'earnings' AND NOT p.for_checks;

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
           coalesce(b.sealed_nanos, 0) + coalesce(e.folded_nanos, 0) AS folded_nanos
      FROM (SELECT ledger_account_id, posted_nanos,
                   (SELECT s.posted_nanos FROM seals s
                     WHERE s.ledger_account_id = balances.ledger_account_id AND s.sealed_before <= sealed_before()
                     ORDER BY s.sealed_before DESC LIMIT 1) AS sealed_nanos
              FROM balances) b
      FULL JOIN (SELECT ledger_account_id, sum(amount_nanos) AS folded_nanos FROM entered GROUP BY 1) e
             ON e.ledger_account_id = b.ledger_account_id
     WHERE b.posted_nanos IS DISTINCT FROM coalesce(b.sealed_nanos, 0) + coalesce(e.folded_nanos, 0);

-- One fold proves the balances and each seal: a balance is what will be sealed at the end of time. There is a row for each
-- account and seal between which it moved; an account without a balance has no `posted_nanos`, nor has one without the seal
-- that was due after an entry.
DROP VIEW replay_seal_is_its_entries, replay_balance_is_its_entries;
CREATE VIEW replay_balance_is_its_entries AS
    WITH moments AS MATERIALIZED (
        SELECT array_agg(sealed_before ORDER BY sealed_before) || 'infinity'::timestamptz AS list FROM seal_periods
    ), folded AS (
        -- An entry falls into the first seal whose moment is later than the entry's.
        SELECT ledger_account_id, width_bucket(at, (SELECT list FROM moments)) + 1 AS place, sum(amount_nanos) AS nanos
          FROM ledger_entries GROUP BY 1, 2
    ), moved AS (
        SELECT ledger_account_id, (SELECT list FROM moments)[place] AS sealed_before, nanos FROM folded
    ), stated AS (
        SELECT ledger_account_id, sealed_before, posted_nanos FROM seals
        UNION ALL
        SELECT a.id, 'infinity', b.posted_nanos FROM ledger_accounts a LEFT JOIN balances b ON b.ledger_account_id = a.id
    ), proved AS (
        SELECT ledger_account_id, sealed_before, s.posted_nanos,
               sum(coalesce(m.nanos, 0)) OVER (PARTITION BY ledger_account_id ORDER BY sealed_before) AS folded_nanos
          FROM stated s FULL JOIN moved m USING (ledger_account_id, sealed_before)
    )
    SELECT ledger_account_id, sealed_before, posted_nanos, folded_nanos FROM proved
     WHERE posted_nanos IS DISTINCT FROM folded_nanos;

-- An invoice closes with what its account had at the last seal of the month, which is proved above, and what moved after that.
CREATE OR REPLACE VIEW replay_invoice_is_its_entries AS
    WITH ended AS MATERIALIZED (
        SELECT month, at, (SELECT coalesce(max(sealed_before), '-infinity') FROM seal_periods WHERE sealed_before <= at) AS sealed_before
          FROM (SELECT DISTINCT month, (month + interval '1 month') AT TIME ZONE 'UTC' AS at FROM invoices) months
    ), late AS (
        SELECT m.month, e.ledger_account_id, sum(e.amount_nanos) AS nanos
          FROM ended m JOIN ledger_entries e ON e.at >= m.sealed_before AND e.at < m.at GROUP BY 1, 2
    ), stood AS (
        SELECT i.id, i.closing_nanos, sum(coalesce(s.posted_nanos, 0) + coalesce(l.nanos, 0)) AS folded_nanos
          FROM invoices i
          JOIN ended m ON m.month = i.month
          LEFT JOIN ledger_accounts a ON a.owner_id = i.account_id
          LEFT JOIN LATERAL (SELECT posted_nanos FROM seals
                              WHERE ledger_account_id = a.id AND sealed_before <= m.sealed_before
                              ORDER BY sealed_before DESC LIMIT 1) s ON true
          LEFT JOIN late l ON l.month = i.month AND l.ledger_account_id = a.id
         GROUP BY i.id, i.closing_nanos
    )
    SELECT id, closing_nanos, folded_nanos FROM stood WHERE closing_nanos <> folded_nanos;

-- Transfers are summed once, and not looked through for each purse.
CREATE OR REPLACE VIEW replay_available_is_unpaid AS
    WITH unpaid AS (
        SELECT debit_id, credit_id, amount_nanos FROM transfers t
         WHERE kind <> 'payout' AND NOT EXISTS (SELECT FROM payout_items i WHERE i.transfer_id = t.id)
    ), moved AS (
        SELECT account_id, sum(nanos) AS nanos
          FROM (SELECT credit_id AS account_id, amount_nanos AS nanos FROM unpaid
                UNION ALL SELECT debit_id, -amount_nanos FROM unpaid) entered
         GROUP BY 1
    ), kept AS (
        SELECT p.provider_id, sum(k.amount_nanos) AS nanos FROM payouts p JOIN payout_items k ON k.payout_id = p.id
         WHERE k.transfer_id IS NULL AND k.carried_from IS NULL
           AND NOT EXISTS (SELECT FROM payout_items c WHERE c.carried_from = p.id)
         GROUP BY 1
    )
    SELECT b.ledger_account_id, b.posted_nanos, coalesce(m.nanos, 0) - coalesce(k.nanos, 0) AS unpaid_nanos
      FROM ledger_accounts a
      JOIN balances b ON b.ledger_account_id = a.id
      LEFT JOIN moved m ON m.account_id = a.id
      LEFT JOIN kept k ON k.provider_id = a.owner_id
     WHERE a.kind = 'available' AND b.posted_nanos <> coalesce(m.nanos, 0) - coalesce(k.nanos, 0);

-- What was charged to keys with budgets is sealed too, for the day that a seal is in: each minute all of it was summed from
-- midnight on. It is no record of money, and goes with the day.
CREATE TABLE budget_seals (
    sealed_before   timestamptz NOT NULL REFERENCES seal_periods,
    key_id          text COLLATE "C" NOT NULL,
    begins_at       timestamptz NOT NULL,
    charged_nanos   bigint NOT NULL,
    PRIMARY KEY (sealed_before, key_id, begins_at)
);

-- What was charged to keys with budgets, by the day in which the call was admitted. Nearly all calls are settled within an hour:
-- those and their holds meet once, and the holds of the others are looked up one by one.
CREATE FUNCTION budget_charges(since timestamptz, until timestamptz)
    RETURNS TABLE (key_id text, begins_at timestamptz, charge_nanos bigint) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT h.key_id, date_trunc('day', h.created_at, 'UTC'), s.charge_nanos
      FROM settlements s JOIN budgeted_holds h ON h.call_id = s.call_id
     WHERE s.settled_at >= since AND s.settled_at < until
       AND s.held_at >= since - interval '1 hour' AND h.created_at >= since - interval '1 hour'
    UNION ALL
    SELECT h.key_id, date_trunc('day', s.held_at, 'UTC'), s.charge_nanos
      FROM settlements s
      CROSS JOIN LATERAL (SELECT key_id FROM budgeted_holds WHERE call_id = s.call_id AND created_at = s.held_at OFFSET 0) h
     WHERE s.settled_at >= since AND s.settled_at < until AND s.held_at < since - interval '1 hour'
$$;

INSERT INTO budget_seals
    SELECT sealed_before, c.key_id, c.begins_at, sum(c.charge_nanos)
      FROM last_seal CROSS JOIN LATERAL budget_charges(date_trunc('day', sealed_before, 'UTC'), sealed_before) c
     WHERE isfinite(sealed_before) AND c.begins_at >= date_trunc('day', sealed_before, 'UTC') GROUP BY 1, 2, 3;

-- Of the periods, years of them by then, the checks of each minute read those of late.
CREATE INDEX budget_periods_since ON budget_periods (begins_at);

CREATE OR REPLACE VIEW invariant_budget_day_is_its_charges AS
    SELECT key_id, begins_at, b.counted_nanos, d.charged_nanos
      FROM (SELECT key_id, begins_at, spent_nanos - carried_nanos + refunded_nanos AS counted_nanos FROM budget_periods
             WHERE kind = 'day' AND begins_at >= date_trunc('day', sealed_before(), 'UTC')) b
      FULL JOIN (SELECT key_id, begins_at, sum(charged_nanos) AS charged_nanos
                   FROM (SELECT key_id, begins_at, charged_nanos FROM budget_seals WHERE sealed_before = sealed_before()
                         UNION ALL
                         SELECT key_id, begins_at, charge_nanos FROM budget_charges(sealed_before(), 'infinity')
                          WHERE begins_at >= date_trunc('day', sealed_before(), 'UTC')) c
                  GROUP BY 1, 2) d USING (key_id, begins_at)
     WHERE coalesce(b.counted_nanos, 0) <> coalesce(d.charged_nanos, 0);

-- Totals of keys that nothing was counted for since are left to the replay.
CREATE VIEW replay_budget_periods_sum_up AS
    SELECT key_id, date_trunc('month', begins_at, 'UTC') AS begins_at, 'month' AS kind,
           sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month') AS counted_nanos,
           sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'day') AS parts_nanos
      FROM budget_periods WHERE kind <> 'total'
     GROUP BY 1, 2 HAVING sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month')
         IS DISTINCT FROM sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'day')
    UNION ALL
    SELECT key_id, NULL, 'total', sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'total'),
           sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month')
      FROM budget_periods WHERE kind <> 'day'
     GROUP BY 1 HAVING sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'total')
         IS DISTINCT FROM sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month');

CREATE OR REPLACE VIEW invariant_budget_periods_sum_up AS
    SELECT key_id, date_trunc('month', begins_at, 'UTC') AS begins_at, 'month' AS kind,
           sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month') AS counted_nanos,
           sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'day') AS parts_nanos
      FROM budget_periods
     WHERE kind <> 'total' AND begins_at >= date_trunc('month', sealed_before(), 'UTC')
     GROUP BY 1, 2 HAVING sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month')
         IS DISTINCT FROM sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'day')
    UNION ALL
    SELECT key_id, NULL, 'total', sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'total'),
           sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month')
      FROM budget_periods
     WHERE kind IN ('month', 'total')
       AND key_id IN (SELECT key_id FROM budget_periods WHERE begins_at >= date_trunc('day', sealed_before(), 'UTC'))
     GROUP BY 1 HAVING sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'total')
         IS DISTINCT FROM sum(spent_nanos - carried_nanos + refunded_nanos) FILTER (WHERE kind = 'month');

-- Two of the three indexes of open holds were written with each call for sweeps that come every few seconds: these read the few
-- rows there are. Last, for whoever opens or settles a hold waits from here on until all of this is done.
DROP INDEX open_holds_expiry, open_holds_process;
