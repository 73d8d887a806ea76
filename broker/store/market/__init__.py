"""Who offers what, and at which prices."""
