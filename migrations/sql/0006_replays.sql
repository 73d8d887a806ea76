-- Stored answers of calls under an idempotency key.
SELECT 1;
