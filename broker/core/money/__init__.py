"""What follows from a charge: takes, postings, refunds, payouts, receipts, budgets."""
