"""This market, written down as a scenario from what a broker knows of it."""
