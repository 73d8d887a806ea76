-- Every row of an invariant_* view is an alarm. They fold the open period on top of the last seal; the replay_* views
-- fold everything and prove the seals.

CREATE VIEW last_seal AS SELECT coalesce(max(sealed_before), '-infinity'::timestamptz) AS sealed_before FROM seal_periods;

CREATE VIEW invariant_books_sum_to_zero AS
    SELECT a.currency, sum(b.posted_nanos) AS off_by_nanos
      FROM balances b JOIN ledger_accounts a ON a.id = b.ledger_account_id
     GROUP BY a.currency HAVING sum(b.posted_nanos) <> 0;

CREATE VIEW invariant_balance_is_its_entries AS
    SELECT b.ledger_account_id, b.posted_nanos, coalesce(s.posted_nanos, 0) + coalesce(e.folded_nanos, 0) AS folded_nanos
      FROM balances b
      LEFT JOIN seals s ON s.ledger_account_id = b.ledger_account_id
                       AND s.sealed_before = (SELECT sealed_before FROM last_seal)
      LEFT JOIN (SELECT ledger_account_id, sum(amount_nanos) AS folded_nanos FROM ledger_entries
                  WHERE at >= (SELECT sealed_before FROM last_seal) GROUP BY ledger_account_id) e
             ON e.ledger_account_id = b.ledger_account_id
     WHERE b.posted_nanos <> coalesce(s.posted_nanos, 0) + coalesce(e.folded_nanos, 0);

CREATE VIEW invariant_entry_has_an_account AS
    SELECT e.ledger_account_id, e.source FROM ledger_entries e
     WHERE e.at >= (SELECT sealed_before FROM last_seal)
       AND NOT EXISTS (SELECT 1 FROM balances b WHERE b.ledger_account_id = e.ledger_account_id);

CREATE VIEW invariant_held_is_open_holds AS
    SELECT b.ledger_account_id, b.held_nanos, coalesce(o.open_nanos, 0) AS open_nanos
      FROM balances b
      LEFT JOIN (SELECT ledger_account_id, sum(amount_nanos) AS open_nanos FROM open_holds GROUP BY ledger_account_id) o
             ON o.ledger_account_id = b.ledger_account_id
     WHERE b.held_nanos <> coalesce(o.open_nanos, 0);

CREATE VIEW invariant_hold_is_open_or_settled AS
    SELECT h.call_id, count(o.call_id) AS open, count(s.call_id) AS settled
      FROM holds h
      LEFT JOIN open_holds o ON o.call_id = h.call_id
      LEFT JOIN settlements s ON s.call_id = h.call_id AND s.settled_at >= (SELECT sealed_before FROM last_seal)
     WHERE h.created_at >= (SELECT sealed_before FROM last_seal)
     GROUP BY h.call_id HAVING count(o.call_id) + count(s.call_id) <> 1
    UNION ALL
    SELECT o.call_id, 1, 0 FROM open_holds o
     WHERE NOT EXISTS (SELECT 1 FROM holds h WHERE h.call_id = o.call_id AND h.created_at = o.created_at
                                               AND h.amount_nanos = o.amount_nanos)
    UNION ALL
    SELECT s.call_id, 0, 1 FROM settlements s
     WHERE s.settled_at >= (SELECT sealed_before FROM last_seal)
       AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.call_id = s.call_id AND h.created_at = s.held_at
                                               AND h.amount_nanos = s.hold_nanos);

CREATE VIEW invariant_lines_sum_to_charge AS
    SELECT s.call_id, s.charge_nanos, coalesce(l.lines_nanos, 0) AS lines_nanos
      FROM settlements s
      LEFT JOIN (SELECT call_id, sum(charge_nanos) AS lines_nanos FROM settlement_lines
                  WHERE settled_at >= (SELECT sealed_before FROM last_seal) GROUP BY call_id) l ON l.call_id = s.call_id
     WHERE s.settled_at >= (SELECT sealed_before FROM last_seal) AND s.charge_nanos <> coalesce(l.lines_nanos, 0)
    UNION ALL
    SELECT l.call_id, 0, l.charge_nanos FROM settlement_lines l
     WHERE l.settled_at >= (SELECT sealed_before FROM last_seal)
       AND NOT EXISTS (SELECT 1 FROM settlements s WHERE s.call_id = l.call_id AND s.settled_at = l.settled_at);

CREATE VIEW invariant_served_call_is_settled AS
    SELECT c.id, c.charge_nanos, s.charge_nanos AS settled_nanos
      FROM calls c
      LEFT JOIN settlements s ON s.call_id = c.id AND s.settled_at >= c.created_at
     WHERE c.created_at >= (SELECT sealed_before FROM last_seal)
       AND c.hold_nanos > 0 AND c.charge_nanos IS DISTINCT FROM s.charge_nanos;

CREATE VIEW replay_balance_is_its_entries AS
    SELECT b.ledger_account_id, b.posted_nanos, coalesce(sum(e.amount_nanos), 0) AS folded_nanos
      FROM balances b LEFT JOIN ledger_entries e USING (ledger_account_id)
     GROUP BY b.ledger_account_id, b.posted_nanos HAVING b.posted_nanos <> coalesce(sum(e.amount_nanos), 0);

CREATE VIEW replay_seal_is_its_entries AS
    SELECT s.ledger_account_id, s.sealed_before, s.posted_nanos,
           (SELECT coalesce(sum(e.amount_nanos), 0) FROM ledger_entries e
             WHERE e.ledger_account_id = s.ledger_account_id AND e.at < s.sealed_before) AS folded_nanos
      FROM seals s
     WHERE s.posted_nanos <> (SELECT coalesce(sum(e.amount_nanos), 0) FROM ledger_entries e
             WHERE e.ledger_account_id = s.ledger_account_id AND e.at < s.sealed_before);
