"""The console: pages that show the market live, and the viewer's own calls; it decides nothing."""
