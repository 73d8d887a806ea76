"""Events, and who is to be told of them."""
