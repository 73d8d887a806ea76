"""Domains, suites, and what consumers say of answers."""
