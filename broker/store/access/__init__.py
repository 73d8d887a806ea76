"""Accounts, keys and sessions, the audit log, and what was done once under its key."""
