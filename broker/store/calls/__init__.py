"""Calls as they are kept: how each went, what was promised of it, what it answered."""
