"""Serves metrics where the settings say so; what that takes is loaded only then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def metrics_served(listen: str, families: Callable[[], Iterable[Metric]]) -> AsyncIterator[str]:
    """Serves for as long as the block runs; yields HOST:PORT, empty for nowhere.

    Args:
        listen: HOST:PORT as for ``MetricsServer.start``; empty for nowhere.
        families: What the daemon tells of itself, called for each answer.

    Raises:
        FailedPrecondition: The port cannot be had.
    """
    if not listen:
        yield ""
        return
    from coral.telemetry.metrics import MetricsServer

    server = MetricsServer(families)
    address = await server.start(listen)
    _log.info("metrics are served", address=address)
    try:
        yield address
    finally:
        await server.stop()
