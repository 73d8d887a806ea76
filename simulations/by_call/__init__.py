"""A run call by call, each at its own moment."""
