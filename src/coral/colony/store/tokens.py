"""Users' tokens, as the control file keeps them: never a token, its hash alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import duckdb

from coral.model.principal import Role
from coral.trust.tokens import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """What is kept of a token. Times are wall clock, ns since the epoch; in the file they have the resolution of µs.

    Attributes:
        token_id: As in the token.
        name: Of the user that it stands for; unique among those that count.
        digest: The SHA-256 of the token.
        role: What its holder may.
        services: Globs over the services that it is good for; empty for all.
        created_at_ns: When it was made.
        created_by: By whom.
        expires_at_ns: When it ends; None for not by itself.
        revoked_at_ns: When it was ended; None if it was not.
    """

    token_id: str
    name: str
    digest: bytes = field(repr=False)
    role: Role
    services: tuple[str, ...] = ()
    created_at_ns: int
    created_by: str
    expires_at_ns: int | None = None
    revoked_at_ns: int | None = None


def record_of(
    token: Token,
    *,
    name: str,
    role: Role,
    created_at_ns: int,
    created_by: str,
    services: tuple[str, ...] = (),
    expires_at_ns: int | None = None,
) -> TokenRecord:
    """What is to be kept of a new token."""
    return TokenRecord(
        token_id=token.token_id,
        name=name,
        digest=token.digest,
        role=role,
        services=services,
        created_at_ns=created_at_ns,
        created_by=created_by,
        expires_at_ns=expires_at_ns,
    )


def insert_token(connection: duckdb.DuckDBPyConnection, record: TokenRecord) -> None:
    """Keeps a new token; a job for ``Database.write``."""
    connection.execute(
        "INSERT INTO access_tokens VALUES (?, ?, ?, ?, ?, make_timestamptz(?::BIGINT), ?, make_timestamptz(?::BIGINT), NULL)",
        [
            record.token_id, record.name, record.digest, str(record.role), list(record.services),
            record.created_at_ns // 1000, record.created_by,
            None if record.expires_at_ns is None else record.expires_at_ns // 1000,
        ],
    )  # fmt: skip


def revoke_token(connection: duckdb.DuckDBPyConnection, token_id: str, revoked_at_ns: int) -> None:
    """Ends a token; likewise. It stays in the file, so that the audit log can be read."""
    connection.execute(
        "UPDATE access_tokens SET revoked_at = make_timestamptz(?::BIGINT) WHERE token_id = ? AND revoked_at IS NULL",
        [revoked_at_ns // 1000, token_id],
    )


def forget_tokens(connection: duckdb.DuckDBPyConnection, ended_before_ns: int) -> None:
    """Removes tokens that ended before a time, by themselves or not; likewise."""
    before_us = ended_before_ns // 1000
    connection.execute(
        "DELETE FROM access_tokens WHERE least(coalesce(revoked_at, expires_at), coalesce(expires_at, revoked_at)) "
        "< make_timestamptz(?::BIGINT)",
        [before_us],
    )


def load_tokens(connection: duckdb.DuckDBPyConnection) -> list[TokenRecord]:
    """All tokens, oldest first, also those that have ended."""
    return [
        TokenRecord(
            token_id=row[0],
            name=row[1],
            digest=row[2],
            role=Role(row[3]),
            services=tuple(row[4]),
            created_at_ns=row[5],
            created_by=row[6],
            expires_at_ns=row[7],
            revoked_at_ns=row[8],
        )
        for row in connection.execute(
            'SELECT token_id, name, digest, "role", services, epoch_ns(created_at), created_by, epoch_ns(expires_at), '
            "epoch_ns(revoked_at) FROM access_tokens ORDER BY created_at, token_id"
        ).fetchall()
    ]
