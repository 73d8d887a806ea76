"""What providers sign of the calls that they served, compared with what was charged."""
