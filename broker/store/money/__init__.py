"""Money on its way: earnings, payouts, disputes, plans of the take, invoices."""
