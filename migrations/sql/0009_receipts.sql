-- Signed receipts of usage, and the cases that they open.
SELECT 1;
