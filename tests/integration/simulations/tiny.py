"""A scenario that is run within a fraction of a second."""

from __future__ import annotations

TOML = """
name = "tiny"
horizon_s = 40.0
warm_up_s = 5.0

[[providers]]
name = "acme"

[[providers.endpoints]]
name = "chat"
capacity = 4
band = { out_usd = [0.1, 0.4, 8.0] }
cost = { out_usd = 0.1 }
server = { kind = "sharing_server", batch_max = 4 }

[[classes]]
name = "callers"
model = "small"
arrivals = { kind = "poisson", rate_per_s = 3.0 }
value = { mean_usd = 0.0003 }
"""
