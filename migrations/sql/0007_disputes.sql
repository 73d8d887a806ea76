-- What happens after a call: credit notes, disputes, invoices, credits for promises that were missed, and counts of lost
-- calls. All tables are new and small beside the call log; nothing here reads or locks a big table for long.

-- All earnings of a provider's lines settled before this moment have been moved from `earnings` to `available`, less
-- what had been taken back from `earnings` for those calls by then. No row: nothing has been moved yet. Whoever moves
-- it on holds the row locks of the provider's balances, and so does whoever takes money back.
CREATE TABLE maturities (
    provider_id     uuid PRIMARY KEY REFERENCES accounts,
    matured_before  timestamptz NOT NULL
);
