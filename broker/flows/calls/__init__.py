"""One call: decided, reserved, forwarded, settled; and what is told of it afterwards."""
