"""A run slice by slice: calls that come together are decided together."""
