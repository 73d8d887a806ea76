"""Events, told to those who asked for them."""
