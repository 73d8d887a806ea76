"""Use cases, one a file: load, decide, act. Here alone are transactions opened."""
