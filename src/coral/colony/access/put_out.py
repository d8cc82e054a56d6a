"""Users of an identity provider whose tokens were revoked here: what was issued to them until then counts no more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import duckdb

from coral.colony.store.database import Database
from coral.model.errors import FailedPrecondition, InvalidArgument, Unauthenticated
from coral.model.principal import Principal
from coral.model.text import check_name
from coral.trust.oidc import LEEWAY_S, MAX_LIFE_S

_MOST = 10_000
_LONGEST_NS = (MAX_LIFE_S + 2 * LEEWAY_S) * 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOut:
    """One of them. Times are wall clock, ns since the epoch.

    Attributes:
        name: As policies and the audit log have it, ``oidc:NAME``.
        at_ns: Tokens that were issued until then do not count.
        until_ns: When the last of those has ended by itself.
    """

    name: str
    at_ns: int
    until_ns: int


class PutOutUsers:
    """All of them: in memory, since every call asks, and in the control file."""

    def __init__(self, control: Database, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Args: ``control`` is the file that keeps them; ``clock_ns`` the wall clock."""
        self._control = control
        self._clock_ns = clock_ns
        self._all: dict[str, PutOut] = {}

    async def load(self) -> None:
        """Reads what the file has."""
        rows = await self._control.read(
            lambda cursor: cursor.execute("SELECT name, epoch_ns(out_at), epoch_ns(until_at) FROM put_out_users").fetchall()
        )
        self._all = {name: PutOut(name=name, at_ns=at_ns, until_ns=until_ns) for name, at_ns, until_ns in rows}

    def check(self, principal: Principal) -> None:
        """Passes unless the token that proved a user was issued before that user was put out.

        Raises:
            Unauthenticated: It was.
        """
        found = self._all.get(principal.name)
        # A token may say that it was issued as much later as clocks may differ.
        if found is not None and (principal.issued_at_ns or 0) <= found.at_ns + LEEWAY_S * 1_000_000_000:
            raise Unauthenticated(
                f"The tokens of {principal.name} were revoked.", hint="Get a new one, if the identity provider gives you one."
            )

    async def put_out(self, name: str) -> PutOut:
        """Ends all tokens of a user that were issued until now: at once here, and for good once this returns.

        Raises:
            InvalidArgument: That is no name.
            FailedPrecondition: There are too many.
            Unavailable: It cannot be written; they are out until the colony restarts.
        """
        check_name(name, "name")
        if len(name) > 1_024:
            raise InvalidArgument("That is no name of a user.", hint="Take it from the audit log.")
        now_ns = self._clock_ns() // 1000 * 1000
        over = [one.name for one in self._all.values() if one.until_ns < now_ns]
        if len(self._all) - len(over) >= _MOST:
            raise FailedPrecondition(f"{_MOST:,} users are out.", hint="Put them out at the identity provider.")
        new = self._all[name] = PutOut(name=name, at_ns=now_ns, until_ns=now_ns + _LONGEST_NS)

        def write(connection: duckdb.DuckDBPyConnection) -> None:
            for each in (*over, name):
                connection.execute("DELETE FROM put_out_users WHERE name = ?", [each])
            connection.execute(
                "INSERT INTO put_out_users VALUES (?, make_timestamptz(?::BIGINT), make_timestamptz(?::BIGINT))",
                [name, new.at_ns // 1000, new.until_ns // 1000],
            )

        await self._control.write(write)
        for each in over:
            self._all.pop(each, None)
        return new
