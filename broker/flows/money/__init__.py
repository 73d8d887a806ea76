"""Money beside calls: in, back, and out again; and what accounts are told of it."""
