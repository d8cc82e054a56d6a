"""``sdk_addr`` is a hint: does an SDK answer there?

What it would say is never needed, and never trusted for a pid or an offset.
"""

from __future__ import annotations

import asyncio

import structlog

from coral.model.probe import check_sdk_addr

_DEADLINE_S = 0.1

_log = structlog.get_logger(__name__)


async def answers(sdk_addr: str) -> bool:
    """Whether something accepts a connection at a loopback address or unix socket within 100 ms.

    Raises:
        InvalidArgument: The address is not on this host.
    """
    check_sdk_addr(sdk_addr)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            if sdk_addr.startswith(("unix:", "/")):
                _, writer = await asyncio.open_unix_connection(sdk_addr.removeprefix("unix:"))
            else:
                host, _, port = sdk_addr.rpartition(":")
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError):
        _log.info("nothing answers at sdk_addr; resolving without it", sdk_addr=sdk_addr)
        return False
    writer.close()
    return True
