"""The model of a server, fitted to what a real one did."""
