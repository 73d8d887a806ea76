"""Domains, suites, and all that is known of how good answers are."""
