"""Scenarios in files: read, checked and told in lines, with what is wrong and where."""
