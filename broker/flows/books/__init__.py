"""Holds and settlements of many calls in few commits, and whether the books are right."""
