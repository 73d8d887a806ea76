-- What the console reads: names instead of numbers, no secret, nothing that a page would have to work out itself.
-- Who may see a row is for the reader to ask: each view carries the accounts that the row concerns.

CREATE VIEW console_endpoints AS
    SELECT e.number, p.name || '/' || e.name AS name, e.id AS endpoint_id, e.provider_id, p.name AS provider, e.retired_at
      FROM endpoints e JOIN accounts p ON p.id = e.provider_id;

CREATE VIEW console_deployments AS
    SELECT d.id, d.provider_id, p.name || '/' || d.name AS name, d.url, d.kind, d.status, d.reports, d.updated_at
      FROM deployments d JOIN accounts p ON p.id = d.provider_id
     WHERE p.closed_at IS NULL;

CREATE VIEW console_prices AS
    SELECT endpoint_number, at, version, rate_in_micros, rate_out_micros, rate_call_nanos, load FROM price_changes;

CREATE VIEW console_calls AS
    SELECT c.id, c.created_at, c.account_id, a.name AS account, c.key_id, c.task, c.model, c.domain, c.stream, c.status,
           c.code, c.endpoint_number, c.price_version, c.hold_nanos, c.charge_nanos, c.tokens_in, c.tokens_out,
           c.ttft_ms, c.duration_ms, c.task_label, c.session_id, c.labels, c.story
      FROM calls c JOIN accounts a ON a.id = c.account_id;

CREATE VIEW console_charges AS
    SELECT l.call_id, l.attempt, e.number AS endpoint_number, e.provider_id, l.tokens_in, l.tokens_out, l.rate_in_micros,
           l.rate_out_micros, l.rate_call_nanos, l.price_version, l.charge_nanos, l.take_nanos, l.earnings_nanos
      FROM settlement_lines l JOIN endpoints e ON e.id = l.endpoint_id;

-- One line an account; the broker's own share, which no account owns, is the line without one.
CREATE VIEW console_purses AS
    SELECT a.owner_id AS account_id, a.kind, sum(b.posted_nanos)::bigint AS posted_nanos,
           sum(b.held_nanos)::bigint AS held_nanos
      FROM ledger_accounts a JOIN balances b ON b.ledger_account_id = a.id
     WHERE a.kind <> 'world'
     GROUP BY a.owner_id, a.kind;
