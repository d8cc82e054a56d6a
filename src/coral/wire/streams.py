"""Streams that end when the right to them does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

RECHECK_S = 0.5
"""Twice a second, so that what was revoked is out within one."""


async def while_valid(
    responses: AsyncGenerator[T, None], check: Callable[[], Awaitable[None]], *, every_s: float = RECHECK_S
) -> AsyncGenerator[T, None]:
    """What ``responses`` yields, for as long as ``check`` passes.

    Args:
        responses: The stream; closed at the end.
        check: Raises when the stream may not go on.
        every_s: How often it is asked, also while nothing comes.

    Raises:
        Exception: What ``check`` or the stream raised.
    """

    async def watch() -> None:
        while True:
            await asyncio.sleep(every_s)
            await check()

    watching = asyncio.create_task(watch())
    coming: asyncio.Task[list[T]] | None = None
    try:
        while True:
            coming = asyncio.create_task(_next(responses))
            await asyncio.wait((coming, watching), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            response = coming.result()
            if not response:
                return
            yield response[0]
    finally:
        tasks = [task for task in (coming, watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await responses.aclose()


async def _next(responses: AsyncGenerator[T, None]) -> list[T]:
    """The next item alone; nothing at the end."""
    async for response in responses:
        return [response]
    return []
