"""Deployments: how they come to the market, and which calls do not come to them."""
