"""Users' tokens: made, listed, revoked, and looked up for every call. They are in memory too: a revoked one is out then."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import duckdb

from coral.colony.store.database import Database
from coral.colony.store.tokens import TokenRecord, forget_tokens, insert_token, load_tokens, record_of, revoke_token
from coral.model.errors import FailedPrecondition, InvalidArgument, NotFound, Unauthenticated
from coral.model.principal import Kind, Principal, Role
from coral.model.text import check_name, format_duration
from coral.trust.tokens import Token, TokenKind, new_token, parse_token

DEFAULT_LIFE_NS = 24 * 3600 * 1_000_000_000
MAX_LIFE_NS = 366 * DEFAULT_LIFE_NS
KEPT_NS = 90 * DEFAULT_LIFE_NS
"""For how long a token that has ended is listed."""
_MAX_ACTIVE = 10_000
_MAX_SERVICES = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_LOG_IN = "Get another from an admin (`coral token create`), and keep it with `coral login`."


class TokenBook:
    """All tokens of the colony's users."""

    def __init__(self, control: Database, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Args: ``control`` is the file that keeps them; ``clock_ns`` the wall clock."""
        self._control = control
        self._clock_ns = clock_ns
        self._records: dict[str, TokenRecord] = {}
        self._used_at_ns: dict[str, int] = {}
        self._making: set[str] = set()

    async def load(self) -> None:
        """Reads what the file has, and forgets what ended long ago: the audit log tells of it for longer."""
        before_ns = self._clock_ns() - KEPT_NS
        await self._control.write(lambda connection: forget_tokens(connection, before_ns))
        self._records = {record.token_id: record for record in await self._control.read(load_tokens)}

    def identify(self, text: str, address: str) -> Principal:
        """The user whose token this is.

        Args:
            text: The token.
            address: Where it came from.

        Raises:
            Unauthenticated: It is none, not of this colony, expired, or revoked.
        """
        token = parse_token(text, TokenKind.USER)
        record = self._records.get(token.token_id)
        # Compared with something in any case, so that the time does not tell which ids there are.
        if not token.matches(record.digest if record else bytes(32)) or record is None:
            raise Unauthenticated("This colony does not know that token.", hint=f"Is it another colony's? {_LOG_IN}")
        self._check(record)
        self._used_at_ns[record.token_id] = self._clock_ns()
        return Principal(
            name=record.name,
            kind=Kind.USER,
            roles=(record.role,),
            address=address,
            credential_id=record.token_id,
            expires_at_ns=record.expires_at_ns,
            scope=record.services,
        )

    def recheck(self, token_id: str) -> None:
        """Whether a token that was accepted still counts.

        Raises:
            Unauthenticated: It has expired, or was revoked.
        """
        self._check(self._records[token_id])

    async def create(
        self, *, name: str, role: str, life_ns: int, services: Sequence[str], created_by: str
    ) -> tuple[Token, TokenRecord]:
        """Makes a token.

        Args:
            name: Of the user that it stands for.
            role: What its holder may.
            life_ns: For how long it counts.
            services: Globs over the services that it is good for; empty for all.
            created_by: By whom.

        Returns:
            The token, which nobody can read again, and what is kept of it.

        Raises:
            InvalidArgument: One of them cannot be.
            FailedPrecondition: There is one of that name, or there are too many.
        """
        record_role = _role(role)
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                "That cannot be the name of a token.",
                hint="At most 128 letters, digits and any of . _ @ + -, a letter or digit first.",
            )
        if not 0 < life_ns <= MAX_LIFE_NS:
            raise InvalidArgument(
                f"A token cannot count for {format_duration(life_ns)}.", hint="Choose more than none, and at most a year."
            )
        if len(services) > _MAX_SERVICES:
            raise InvalidArgument(f"{len(services):,} services are named.", hint=f"At most {_MAX_SERVICES} are allowed.")
        for pattern in services:
            check_name(pattern, "services")
        now_ns = self._clock_ns()
        active = self.active()
        if name in self._making or any(record.name == name for record in active):
            raise FailedPrecondition(
                f"There is a token of {name} that counts.",
                hint=f"End it with `coral token revoke {name}`, or choose another name.",
            )
        if len(active) >= _MAX_ACTIVE:
            raise FailedPrecondition(f"There are {len(active):,} tokens.", hint="Revoke those that nobody uses.")
        token = new_token(TokenKind.USER)
        record = record_of(
            token,
            name=name,
            role=record_role,
            created_at_ns=now_ns,
            created_by=created_by,
            services=tuple(services),
            expires_at_ns=now_ns + life_ns,
        )

        def write(connection: duckdb.DuckDBPyConnection) -> None:
            forget_tokens(connection, now_ns - KEPT_NS)
            insert_token(connection, record)

        self._making.add(name)
        try:
            await self._control.write(write)
        finally:
            self._making.discard(name)
        for old in [one for one in self._records.values() if _ended_at_ns(one) < now_ns - KEPT_NS]:
            del self._records[old.token_id]
            self._used_at_ns.pop(old.token_id, None)
        self._records[token.token_id] = record
        return token, record

    async def revoke(self, name: str) -> TokenRecord:
        """Ends a user's token: at once here, and for good once this returns.

        Raises:
            NotFound: There is none of that name that counts.
            Unavailable: It cannot be written; the token is out until the colony restarts.
        """
        found = next((record for record in self.active() if record.name == name), None)
        if found is None:
            raise NotFound(f"There is no token of {name!r} that counts.", hint="`coral token list` shows those there are.")
        revoked = self._records[found.token_id] = replace(found, revoked_at_ns=self._clock_ns())
        revoked_at_ns = revoked.revoked_at_ns or 0
        await self._control.write(lambda connection: revoke_token(connection, found.token_id, revoked_at_ns))
        return revoked

    def roles_of(self, name: str) -> tuple[Role, ...]:
        """The roles that a user has by a token that counts; none if there is no such token."""
        return tuple(record.role for record in self.active() if record.name == name)

    def active(self) -> list[TokenRecord]:
        """Those that count, newest first."""
        return [record for record in self.every() if self.status(record) == "active"]

    def every(self) -> list[TokenRecord]:
        """All of them, newest first."""
        return sorted(self._records.values(), key=lambda record: (record.created_at_ns, record.token_id), reverse=True)

    def status(self, record: TokenRecord) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if record.revoked_at_ns is not None:
            return "revoked"
        expired = record.expires_at_ns is not None and record.expires_at_ns <= self._clock_ns()
        return "expired" if expired else "active"

    def used_at_ns(self, token_id: str) -> int | None:
        """When it was shown last, in this life of the colony; None if it was not."""
        return self._used_at_ns.get(token_id)

    def _check(self, record: TokenRecord) -> None:
        status = self.status(record)
        if status == "revoked":
            raise Unauthenticated(f"The token of {record.name} was revoked.", hint=_LOG_IN)
        if status == "expired":
            raise Unauthenticated(f"The token of {record.name} has expired.", hint=_LOG_IN)


def _ended_at_ns(record: TokenRecord) -> int:
    """When a token ended or will end; after all times where it does not."""
    return min(each for each in (record.expires_at_ns, record.revoked_at_ns, 1 << 63) if each is not None)


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise InvalidArgument("That is no role.", hint=f"Choose one of {', '.join(Role)}.") from None
