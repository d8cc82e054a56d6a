"""What changes in running sessions, on its way into the control file: what comes in one moment shares one write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import duckdb

from coral.colony.store.collectors import CollectorRow, put_collectors, put_instances
from coral.colony.store.database import Database
from coral.model.session import Instance


class Saving:
    """Queues rows of collectors and instances, of which the latest counts. Belongs to the event loop's thread."""

    def __init__(self, control_db: Database) -> None:
        """Args: ``control_db`` is the control file."""
        self._control = control_db
        self._collectors: dict[str, CollectorRow] = {}
        self._instances: dict[str, Iterable[Instance]] = {}
        self._due = False

    def collector(self, row: CollectorRow) -> None:
        """Queues a collector."""
        self._collectors[row.collector.collector_id] = row
        self._soon()

    def instances(self, collector_id: str, instances: Iterable[Instance]) -> None:
        """Queues the instances of a collector."""
        self._instances[collector_id] = instances
        self._soon()

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            # Not now: an attach or an end on a hundred hosts changes all of them before the loop goes on.
            asyncio.get_running_loop().call_soon(self._post)

    def _post(self) -> None:
        self._due = False
        collectors, self._collectors = list(self._collectors.values()), {}
        instances, self._instances = self._instances, {}

        def put(connection: duckdb.DuckDBPyConnection) -> None:
            if collectors:
                put_collectors(connection, collectors)
            if instances:
                put_instances(connection, instances)

        self._control.post(put, what="collectors and instances")
