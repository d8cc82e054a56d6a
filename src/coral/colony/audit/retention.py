"""Lets go of old records, so that what is kept is still a chain: from where on it is kept is signed first.

Whole files of the copy go, never lines of one; a file whose time has come is put aside for that. So a record is kept for as
long as is set, and for up to a twelfth of that longer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import structlog

from coral.colony.audit import table
from coral.colony.audit.copy import Copy, last_lines
from coral.colony.audit.log import Audit
from coral.model.errors import Unavailable
from coral.trust.audit_files import full_files, read_lines
from coral.trust.chain import NoRecord, parse, time_text

_EVERY_S = 3600.0
_PARTS = 12

_log = structlog.get_logger(__name__)


async def prune_forever(audit: Audit, *, retention_s: int) -> None:
    """Removes what is old enough, every hour, until cancelled."""
    while True:
        try:
            await prune(audit, retention_s=retention_s, now_ns=time.time_ns())
        except (Unavailable, OSError) as error:
            _log.warning("old audit records stay for now", error=str(error))
        await asyncio.sleep(_EVERY_S)


async def prune(audit: Audit, *, retention_s: int, now_ns: int) -> int:
    """Removes what is older than the retention.

    Returns:
        The first record that is kept.

    Raises:
        Unavailable: The log cannot be written.
        OSError: A file cannot be removed.
    """
    writer, copy = audit.writer, audit.copy
    cutoff = time_text(now_ns - retention_s * 10**9)
    if copy is None:
        following = writer.head.sequence + 1  # taken first: what is written from here on is new, and stays
        first = await audit.database.read(lambda cursor: table.first_since(cursor, cutoff)) or following
    else:
        aside = time_text(now_ns - retention_s * 10**9 // _PARTS)

        def looked_up() -> int:
            # In the writer's thread, so that no record comes between the look and the number after the last one.
            return _first_kept(copy, cutoff, aside) or writer.head.sequence + 1

        first = await asyncio.wrap_future(writer.between(looked_up))
    if first <= writer.begins:
        return writer.begins
    await audit.keep_from(first)
    await audit.database.write(lambda connection: table.delete_before(connection, first))
    if copy is not None:
        await asyncio.wrap_future(writer.between(lambda: copy.remove_before(first)))
    _log.info("old audit records removed", kept_from=first)
    return first


def _first_kept(copy: Copy, cutoff: str, aside: str) -> int:
    """The first record of the oldest file that has one from ``cutoff`` on; 0 if none has.

    A file that begins before ``aside`` is put aside, or its oldest records would stay as long as it grows.
    """
    if copy.bytes and _time(read_lines(copy.path)) < aside:
        copy.rotate(even_small=True)
    for first, path in full_files(copy.folder):
        if _time(last_lines(path)) >= cutoff:
            return first
    return copy.first()


def _time(lines: Iterable[bytes]) -> str:
    """The time of the first of some lines that is a record; if none is, one that is never old enough."""
    for line in lines:
        try:
            return parse(line).time
        except NoRecord:
            continue
    return "9999"
