"""Events, who is to be told of them, and what became of it."""
