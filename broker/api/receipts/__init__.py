"""Receipts, and the cases that they open."""
