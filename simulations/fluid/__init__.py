"""What a market can reach at best, calls flowing like water: a measure for its prices."""
