-- The replay of invoices folds each account's entries once, not once for each of its months.
CREATE OR REPLACE VIEW replay_invoice_is_its_entries AS
    WITH moved AS (
        SELECT a.owner_id AS account_id, date_trunc('month', e.at AT TIME ZONE 'UTC')::date AS month,
               sum(e.amount_nanos) AS moved_nanos
          FROM ledger_entries e JOIN ledger_accounts a ON a.id = e.ledger_account_id
         WHERE a.owner_id IN (SELECT account_id FROM invoices) GROUP BY 1, 2
    ), folded AS (
        -- Months without an invoice count on, and months in which nothing moved have one.
        SELECT i.id, i.closing_nanos,
               sum(coalesce(m.moved_nanos, 0)) OVER (PARTITION BY account_id ORDER BY month) AS folded_nanos
          FROM invoices i FULL JOIN moved m USING (account_id, month)
    )
    SELECT id, closing_nanos, folded_nanos FROM folded WHERE id IS NOT NULL AND closing_nanos <> folded_nanos;
