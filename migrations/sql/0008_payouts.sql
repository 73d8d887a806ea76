-- Earnings that mature, and payouts with their items.
SELECT 1;
