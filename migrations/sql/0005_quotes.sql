-- Firm quotes.
SELECT 1;
