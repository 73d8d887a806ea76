"""Accounts, keys, and the log of who did what."""
