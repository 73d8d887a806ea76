-- One consumer's 30,000 calls to one provider in the last two hours, all but the last minute of them sealed, and all of it true;
-- they count in a budget.
CREATE TEMP TABLE called AS
    SELECT id_at(at) AS call, at
      FROM (SELECT now() - interval '2 hours' + n * interval '2 hours' / 30000 AS at FROM generate_series(1, 30000) AS n) AS times;
CREATE TEMP TABLE purse AS
    SELECT uuidv7() AS owner, uuidv7() AS funds, uuidv7() AS seller, uuidv7() AS earnings, id AS take FROM ledger_accounts WHERE kind = 'take' LIMIT 1;
INSERT INTO accounts (id, role, name, created_at) SELECT owner, 'consumer', 'busy', now() - interval '1 day' FROM purse
    UNION ALL SELECT seller, 'provider', 'seller', now() - interval '1 day' FROM purse;
INSERT INTO ledger_accounts (id, owner_id, kind, created_at) SELECT funds, owner, 'funds', now() - interval '1 day' FROM purse
    UNION ALL SELECT earnings, seller, 'earnings', now() - interval '1 day' FROM purse;
INSERT INTO balances (ledger_account_id) SELECT funds FROM purse UNION ALL SELECT earnings FROM purse;
INSERT INTO transfers (id, debit_id, credit_id, amount_nanos, kind, author, created_at)
    SELECT uuidv7(), l.id, funds, 10000000, 'topup', 'test', now() - interval '1 day' FROM purse, ledger_accounts l WHERE l.kind = 'world';
INSERT INTO keys (id, account_id, secret_sha256, created_at) SELECT 'key', owner, sha256(''), now() - interval '1 day' FROM purse;
INSERT INTO budgets (key_id, day_nanos, generation, created_at) VALUES ('key', 10000000, 1, now() - interval '1 day');
INSERT INTO budget_periods (key_id, begins_at, kind, spent_nanos)
    SELECT 'key', begins_at, kind, count(*) * 100 FROM called CROSS JOIN budget_periods_of(at) GROUP BY 2, 3;
INSERT INTO holds (call_id, ledger_account_id, key_id, amount_nanos, created_at, expires_at, budgeted)
    SELECT call, funds, 'key', 500, at, at, true FROM called, purse;
INSERT INTO settlements (call_id, ledger_account_id, kind, hold_nanos, charge_nanos, held_at, settled_at)
    SELECT call, funds, 'captured', 500, 100, at, at FROM called, purse;
INSERT INTO settlement_lines (call_id, attempt, settled_at, endpoint_id, payer_id, payee_id, take_id, tokens_in,
    tokens_out, rate_in_micros, rate_out_micros, rate_call_nanos, price_version, charge_nanos, take_nanos, earnings_nanos)
    SELECT call, 0, at, call, funds, earnings, take, 1, 1, 1, 1, 0, 1, 100, 10, 90 FROM called, purse;
INSERT INTO calls (id, created_at, account_id, key_id, task, model, stream, status, code, price_version, hold_nanos,
    charge_nanos, tokens_in, tokens_out, duration_ms, story)
    SELECT call, at, owner, 'key', 'chat', 'auto', false, 200, 'served', 1, 500, 100, 1, 1, 1, '' FROM called, purse;
UPDATE balances b SET posted_nanos = e.nanos
  FROM (SELECT ledger_account_id, sum(amount_nanos) AS nanos FROM ledger_entries GROUP BY 1) e
 WHERE e.ledger_account_id = b.ledger_account_id;
INSERT INTO seal_periods VALUES (now() - interval '1 minute', now());
INSERT INTO seals
    SELECT b.ledger_account_id, p.sealed_before, coalesce(sum(e.amount_nanos), 0)
      FROM balances b CROSS JOIN seal_periods p
      LEFT JOIN ledger_entries e ON e.ledger_account_id = b.ledger_account_id AND e.at < p.sealed_before
     GROUP BY 1, 2;
INSERT INTO budget_seals
    SELECT sealed_before, 'key', date_trunc('day', at, 'UTC'), count(*) * 100 FROM called, seal_periods
     WHERE at < sealed_before AND at >= date_trunc('day', sealed_before, 'UTC') GROUP BY 1, 3;
