"""How endpoints fare: what changes by the call, who is let rest, how much each can take."""
