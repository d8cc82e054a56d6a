"""What the colony does by the clock: heartbeats' times to disk."""

from __future__ import annotations

import asyncio

from coral.colony.registry import SEEN_FLUSH_S, Registry


async def flush_registry(registry: Registry) -> None:
    """Writes down when agents were last heard of, every few seconds, until cancelled."""
    while True:
        await asyncio.sleep(SEEN_FLUSH_S)
        registry.flush()
