"""Invitations to hosts and the certificates of agents, as the control file keeps them. All but
``load`` are jobs for ``Database.write``. Times are ns since the epoch here and microseconds in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import duckdb


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What is kept of an invitation.

    Attributes:
        invite_id: As in its token.
        digest: The SHA-256 of the token.
        agent_id: Who may join with it; empty for an agent of any name that is free.
        created_at_ns: When it was made.
        created_by: By whom.
        expires_at_ns: When it ends.
        used_by: The agent that joined with it; empty while nobody has.
        used_key: SHA-256 of that agent's public key: the same agent may ask again when the answer was lost.
    """

    invite_id: str
    digest: bytes = field(repr=False)
    agent_id: str = ""
    created_at_ns: int
    created_by: str
    expires_at_ns: int
    used_by: str = ""
    used_key: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate that an agent has.

    Attributes:
        serial: Its serial number, as hexadecimal digits.
        agent_id: Whom it names.
        issued_at_ns: When.
        expires_at_ns: When it ends by itself.
        revoked_at_ns: When it was ended; None if it was not.
    """

    serial: str
    agent_id: str
    issued_at_ns: int
    expires_at_ns: int
    revoked_at_ns: int | None = None


def put_invitation(connection: duckdb.DuckDBPyConnection, invitation: Invitation) -> None:
    """Keeps a new invitation."""
    connection.execute(
        "INSERT INTO agent_invitations VALUES "
        "(?, ?, ?, make_timestamptz(?::BIGINT), ?, make_timestamptz(?::BIGINT), ?, ?)",
        [
            invitation.invite_id, invitation.digest, invitation.agent_id, invitation.created_at_ns // 1000,
            invitation.created_by, invitation.expires_at_ns // 1000, invitation.used_by, invitation.used_key,
        ],
    )  # fmt: skip


def use_invitation(connection: duckdb.DuckDBPyConnection, invitation: Invitation, issued: Issued) -> None:
    """Keeps who joined with an invitation, and the certificate that it got."""
    connection.execute(
        "UPDATE agent_invitations SET used_by = ?, used_key = ? WHERE invite_id = ?",
        [invitation.used_by, invitation.used_key, invitation.invite_id],
    )
    put_certificate(connection, issued)


def put_certificate(connection: duckdb.DuckDBPyConnection, issued: Issued) -> None:
    """Keeps a new certificate."""
    connection.execute(
        "INSERT INTO agent_certificates VALUES (?, ?, make_timestamptz(?::BIGINT), make_timestamptz(?::BIGINT), NULL)",
        [issued.serial, issued.agent_id, issued.issued_at_ns // 1000, issued.expires_at_ns // 1000],
    )


def replace_certificates(connection: duckdb.DuckDBPyConnection, serials: list[str], issued: Issued) -> None:
    """Keeps a new certificate, and forgets older ones of the same agent, which thereby count no more."""
    connection.execute("DELETE FROM agent_certificates WHERE list_contains(?::VARCHAR[], serial)", [serials])
    put_certificate(connection, issued)


def revoke_agent(connection: duckdb.DuckDBPyConnection, agent_id: str, serials: list[str], revoked_at_ns: int) -> None:
    """Ends certificates of an agent, and forgets the invitations by which it came or could come back."""
    connection.execute(
        "UPDATE agent_certificates SET revoked_at = make_timestamptz(?::BIGINT) WHERE list_contains(?::VARCHAR[], serial)",
        [revoked_at_ns // 1000, serials],
    )
    connection.execute("DELETE FROM agent_invitations WHERE agent_id = ? OR used_by = ?", [agent_id, agent_id])


def prune(connection: duckdb.DuckDBPyConnection, now_ns: int) -> None:
    """Forgets what has ended by itself: certificates that TLS refuses anyway, and invitations."""
    for table in ("agent_invitations", "agent_certificates"):
        connection.execute(f"DELETE FROM {table} WHERE expires_at < make_timestamptz(?::BIGINT)", [now_ns // 1000])


def load(connection: duckdb.DuckDBPyConnection) -> tuple[list[Invitation], list[Issued]]:
    """All invitations and certificates, oldest first."""
    invitations = [
        Invitation(
            invite_id=row[0],
            digest=row[1],
            agent_id=row[2],
            created_at_ns=row[3],
            created_by=row[4],
            expires_at_ns=row[5],
            used_by=row[6],
            used_key=row[7],
        )
        for row in connection.execute(
            "SELECT invite_id, digest, agent_id, epoch_ns(created_at), created_by, epoch_ns(expires_at), used_by, used_key "
            "FROM agent_invitations ORDER BY created_at, invite_id"
        ).fetchall()
    ]
    certificates = [
        Issued(serial=row[0], agent_id=row[1], issued_at_ns=row[2], expires_at_ns=row[3], revoked_at_ns=row[4])
        for row in connection.execute(
            "SELECT serial, agent_id, epoch_ns(issued_at), epoch_ns(expires_at), epoch_ns(revoked_at) "
            "FROM agent_certificates ORDER BY issued_at, serial"
        ).fetchall()
    ]
    return invitations, certificates
