"""Examples that teach two domains, and prompts that were not among them."""

from __future__ import annotations

LAW = [
    f"{asks} {about}?"
    for asks in ("May my landlord", "Can a court", "Is a tenant allowed to", "Must a contract")
    for about in (
        "end the lease without notice",
        "claim damages for a breach",
        "appeal against the judgment",
        "change a clause on liability",
        "refuse to pay the rent",
        "set a deadline under the statute",
    )
]
COOKING = [
    f"{asks} {about}?"
    for asks in ("How long do I", "At what heat do I", "With which herbs do I", "Why should I")
    for about in (
        "roast a chicken in the oven",
        "simmer onions in butter",
        "bake bread from rye flour",
        "fry potatoes with garlic",
        "stir a sauce with cream",
        "cook rice with vegetables",
    )
]
