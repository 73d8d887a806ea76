"""A study told on one page: sentences, figures, curves."""
