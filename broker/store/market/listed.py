"""What is listed, as one process knows it: of a large catalog only what has changed is read again.

What has is told by stamps: of ten thousand endpoints they take some 50 ms of the database's time,
where reading it all takes a process a second, and for that second the memory of the whole catalog
once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.catalog import Deployment, Endpoint, ListingStatus
from broker.store.access.accounts import LEDGER_KINDS, Role
from broker.store.market import catalog, offers
from broker.store.market.deployments import Same
from broker.store.market.stamps import NOTHING, Stamps, read_stamps, stamps_by, standing
from broker.store.sealing import Sealer

TOGETHER: Final = 500
"""So many rows are in memory at once."""

_LISTED: Final = f"d.status = '{ListingStatus.LISTED.value}' AND a.closed_at IS NULL"
_DEPLOYMENTS: Final = f"""
SELECT {stamps_by("d.number", "d.ctid", "d.xmin", "a.name")}
  FROM deployments d JOIN accounts a ON a.id = d.provider_id
 WHERE {_LISTED}
"""  # noqa: S608 - of constants
_ENDPOINTS: Final = f"""
SELECT {stamps_by("e.number", "e.ctid", "e.xmin", "o.ctid", "o.xmin", "l.id", "a.name")}
  FROM endpoints e
  JOIN deployments d ON d.id = e.deployment_id
  JOIN offers o ON o.endpoint_id = e.id AND o.valid_to IS NULL
  JOIN accounts a ON a.id = e.provider_id
  JOIN ledger_accounts l ON l.owner_id = e.provider_id AND l.shard = 0
   AND l.kind = '{LEDGER_KINDS[Role.PROVIDER]}'
 WHERE e.retired_at IS NULL AND {_LISTED}
"""  # noqa: S608 - of constants


class Listed:
    """The deployments and endpoints that are listed, each by number. Whatever did not change stays
    the same object; so do the tuples while nothing did."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._servers: dict[int, Deployment] = {}
        self._models: dict[int, Endpoint] = {}
        self._stamps = (NOTHING, NOTHING)
        """Of what has been read, which is not all where a reading was broken off."""
        self.deployments: tuple[Deployment, ...] = ()
        self.endpoints: tuple[Endpoint, ...] = ()

    async def read(self, connection: AsyncConnection) -> None:
        """Bring both up to date. Where that fails they stay as they were, and the next time goes on
        from there."""
        stamps = (
            await read_stamps(connection, _DEPLOYMENTS),
            await read_stamps(connection, _ENDPOINTS),
        )
        if all(map(np.array_equal, stamps, self._stamps)):
            return
        try:
            await self._read(connection, stamps)
        finally:
            self._stamps = _of(stamps[0], self._servers), _of(stamps[1], self._models)
        deployments = tuple(self._servers[number] for number in sorted(self._servers))
        endpoints = tuple(self._models[number] for number in sorted(self._models))
        if deployments != self.deployments:
            self.deployments = deployments
        if endpoints != self.endpoints:
            self.endpoints = endpoints

    async def _read(self, connection: AsyncConnection, stamps: tuple[Stamps, Stamps]) -> None:
        same: Same = {}
        servers, models = self._servers, self._models
        _forget(servers, self._stamps[0], stamps[0])
        _forget(models, self._stamps[1], stamps[1])
        for numbers in _lacking(servers, stamps[0]):
            for server in await catalog.load_deployments(connection, numbers, self._sealer, same):
                servers[server.number] = server
        for number, model in tuple(models.items()):
            if servers.get(model.deployment.number) is not model.deployment:
                del models[number]
        for numbers in _lacking(models, stamps[1]):
            for model in await offers.load_numbers(connection, numbers, servers, same):
                models[model.number] = model


def _of(stamps: Stamps, known: Mapping[int, object]) -> Stamps:
    if len(known) == stamps.size:  # all that were wanted have been read
        return stamps
    return stamps[np.isin(stamps["number"], list(known))]


def _forget(known: dict[int, Any], before: Stamps, stamps: Stamps) -> None:
    """Forget what is gone or has changed."""
    for number in known.keys() - {*standing(before, stamps).tolist()}:
        del known[number]


def _lacking(known: Mapping[int, object], stamps: Stamps) -> Iterator[list[int]]:
    """Return the numbers that are to be read, in parts."""
    wanted = [number for number in stamps["number"].tolist() if number not in known]
    return (wanted[at : at + TOGETHER] for at in range(0, len(wanted), TOGETHER))
