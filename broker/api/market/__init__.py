"""Deployments and their heartbeats; prices, who moves them, and simulations of the market."""
