"""Short ways to the decision: for one endpoint, for a few, for very many."""
