"""The forms of what is sent: JSON members, tensors, traces; and what is wrong with them."""
