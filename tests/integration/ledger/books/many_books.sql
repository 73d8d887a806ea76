-- Books with 4,000 consumers, a call and an open hold each, and five seals, all of it true.
CREATE TEMP TABLE wanted AS
    SELECT uuidv7() AS owner, uuidv7() AS funds, uuidv7() AS call, n,
           now() - interval '30 days' + n * interval '20 days' / 4000 AS at
      FROM generate_series(1, 4000) AS n;
INSERT INTO accounts (id, role, name, created_at) SELECT owner, 'consumer', 'c-' || n, at FROM wanted;
INSERT INTO ledger_accounts (id, owner_id, kind, created_at) SELECT funds, owner, 'funds', at FROM wanted;
INSERT INTO balances (ledger_account_id, posted_nanos, held_nanos) SELECT funds, 900, 50 FROM wanted;
INSERT INTO transfers (id, debit_id, credit_id, amount_nanos, kind, author, created_at)
    SELECT uuidv7(), l.id, funds, 1000, 'topup', 'test', at
      FROM wanted, ledger_accounts l WHERE l.kind = 'world';
INSERT INTO holds (call_id, ledger_account_id, key_id, amount_nanos, created_at, expires_at)
    SELECT call, funds, 'key', 500, at, at FROM wanted
    UNION ALL SELECT owner, funds, 'key', 50, at, at + interval '1 year' FROM wanted;
INSERT INTO open_holds (call_id, ledger_account_id, process_id, amount_nanos, created_at, expires_at)
    SELECT owner, funds, 1, 50, at, at + interval '1 year' FROM wanted;
INSERT INTO settlements (call_id, ledger_account_id, kind, hold_nanos, charge_nanos, held_at, settled_at)
    SELECT call, funds, 'captured', 500, 100, at, at FROM wanted;
INSERT INTO settlement_lines (call_id, attempt, settled_at, endpoint_id, payer_id, payee_id, take_id, tokens_in,
    tokens_out, rate_in_micros, rate_out_micros, rate_call_nanos, price_version, charge_nanos, take_nanos, earnings_nanos)
    SELECT call, 0, at, call, funds, t.id, t.id, 1, 1, 1, 1, 0, 1, 100, 10, 90
      FROM wanted, (SELECT id FROM ledger_accounts WHERE kind = 'take' LIMIT 1) t;
UPDATE balances b SET posted_nanos = CASE l.kind WHEN 'world' THEN -1000 ELSE 100 END * 4000
  FROM ledger_accounts l WHERE l.id = b.ledger_account_id
   AND (l.kind = 'world' OR l.id = (SELECT take_id FROM settlement_lines LIMIT 1));
INSERT INTO seal_periods
    SELECT now() - interval '30 days' + k * interval '25 days' / 5, now() FROM generate_series(1, 5) AS k;
INSERT INTO seals
    SELECT b.ledger_account_id, p.sealed_before, coalesce(sum(e.nanos) FILTER (WHERE e.at < p.sealed_before), 0)
      FROM balances b CROSS JOIN seal_periods p
      LEFT JOIN (SELECT ledger_account_id, at, sum(amount_nanos) AS nanos FROM ledger_entries GROUP BY 1, 2) e
             ON e.ledger_account_id = b.ledger_account_id
     GROUP BY 1, 2;
ANALYZE;
