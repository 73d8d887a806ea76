"""What providers signed of the calls that they served."""
