"""Who calls: when, with what, and what they make of the answer."""
