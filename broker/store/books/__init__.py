"""What is in the books, read and moved beside the statements of calls; and budgets."""
