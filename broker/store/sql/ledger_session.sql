-- What the ledger's commits and plans rest on, whatever the server's defaults are.
SET synchronous_commit = on;
SET default_transaction_isolation = 'read committed';
-- Plans must not follow the statistics of tables that fill and empty by the second.
SET enable_seqscan = off;
-- By its index alone a table is read in the order in which its rows are to be locked, and is not sorted first.
SET enable_bitmapscan = off;
SET plan_cache_mode = force_generic_plan;
SET jit = off;
