"""The words and drawings of the console."""
