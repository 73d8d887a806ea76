-- Commission plans and webhooks.
SELECT 1;
