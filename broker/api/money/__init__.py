"""Balances, statements, invoices; refunds, disputes, earnings, payouts; plans and the books."""
