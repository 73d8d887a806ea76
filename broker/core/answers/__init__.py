"""What an answer is worth: checks without a reference, marks with one."""
