"""Servers: how long they take for a call, how many at a time, and what they tell."""
