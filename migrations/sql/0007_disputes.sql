-- Refunds, credit notes, disputes and credits for broken promises.
SELECT 1;
