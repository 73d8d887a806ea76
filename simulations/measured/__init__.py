"""What a run leaves behind: tables, sums and series, and the figures made of them."""
