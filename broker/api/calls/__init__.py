"""Calls: quoted, decided on without making them, told of, and what they did to the books."""
