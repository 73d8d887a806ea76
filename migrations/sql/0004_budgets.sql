-- Budgets of keys by day, month and in total.
SELECT 1;
