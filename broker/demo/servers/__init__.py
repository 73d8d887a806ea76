"""Launchers of the demo's inference servers: scripts for environments without the broker."""
