"""``coral colony init``: a new colony, from nothing to its first admin."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ulid import ULID

from coral.client.channel import actor
from coral.colony.access.tokens import TokenBook
from coral.colony.audit import Audit
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.errors import FailedPrecondition, NotFound
from coral.model.principal import Kind, Principal, Role
from coral.trust.colony_keys import ColonyKeys, is_initialised
from coral.trust.secret_files import private_folder

FIRST_ADMIN = "admin"
ADMIN_LIFE_NS = 365 * 86_400 * 1_000_000_000
"""Long, because whoever loses the last admin's token has lost the colony; they are told to make others and revoke it."""

_LOCAL = ("localhost", "127.0.0.1", "::1")


async def found(state_dir: Path, names: Sequence[str], *, server_lifetime_s: float, hand_over: Callable[[str], None]) -> None:
    """Makes the keys of a colony and its first admin's token, or changes nothing.

    Until the very last step there is no colony, so what fails on the way can be done again.

    Args:
        state_dir: Where the colony is to keep its state; created if it is not there.
        names: Host names and addresses by which users reach it, besides this host's own.
        server_lifetime_s: For how long its first certificate is good.
        hand_over: Called with the token, which stands nowhere else.

    Raises:
        FailedPrecondition: There is a colony already, it runs, or the directory cannot be used.
        InvalidArgument: A name cannot be one.
        OSError: The token or a file cannot be written.
    """
    _refuse_second(state_dir)
    keys = ColonyKeys.create(str(ULID()), [*names, *_LOCAL, socket.gethostname()], server_lifetime_s=server_lifetime_s)
    await asyncio.to_thread(private_folder, state_dir)
    control = Database(state_dir / "control.duckdb", CONTROL)
    await control.open()  # and nobody else can, from here on
    audit = Audit(control, folder=state_dir)
    try:
        _refuse_second(state_dir)
        await audit.open()
        founder = Principal(name=actor(), kind=Kind.LOCAL)
        async with audit.noting(audit.entry(founder, "InitColony", reason=f"colony {keys.colony_id}")):
            await asyncio.to_thread(keys.save_all_but_ca, state_dir)
            hand_over(await _first_token(control))
            await asyncio.to_thread(keys.save_ca, state_dir)
    finally:
        await audit.close()
        await control.close()


async def replace_admin(state_dir: Path, *, hand_over: Callable[[str], None]) -> None:
    """Makes a new token for the first admin, in the place of one that was lost; whoever owns the files may.

    Args:
        state_dir: Where a colony keeps its state that does not run now.
        hand_over: Called with the token, which stands nowhere else.

    Raises:
        FailedPrecondition: There is no colony, it runs, or the directory cannot be used.
    """
    if not is_initialised(state_dir):
        raise FailedPrecondition(f"There is no colony in {state_dir}.", hint="Make one with `coral colony init`.")
    await asyncio.to_thread(private_folder, state_dir)
    control = Database(state_dir / "control.duckdb", CONTROL)
    await control.open()
    audit = Audit(control, folder=state_dir)
    try:
        await audit.open()
        async with audit.noting(audit.entry(Principal(name=actor(), kind=Kind.LOCAL), "ReplaceAdmin", reason=FIRST_ADMIN)):
            hand_over(await _first_token(control))
    finally:
        await audit.close()
        await control.close()


async def _first_token(control: Database) -> str:
    tokens = TokenBook(control)
    await tokens.load()
    with suppress(NotFound):
        await tokens.revoke(FIRST_ADMIN)  # of an attempt that got no further, or the one that was lost
    token, _ = await tokens.create(
        name=FIRST_ADMIN, role=Role.ADMIN, life_ns=ADMIN_LIFE_NS, services=(), created_by="coral colony init"
    )
    return token.text


def _refuse_second(state_dir: Path) -> None:
    if is_initialised(state_dir):
        raise FailedPrecondition(
            f"There is a colony in {state_dir}; nothing was changed.",
            hint="Start it with `coral colony start`, or found another one with --state-dir.",
        )
