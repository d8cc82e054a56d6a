"""Sessions, their collectors and instances, as the control file keeps them.

Functions that insert, update, put or delete are jobs for ``Database.write``, the others for ``Database.read``. Times are ns
since the epoch here and TIMESTAMPTZ (microseconds) in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from coral.colony.store.documents import intervals_of, ledger_of
from coral.model.addresses import FileOffset
from coral.model.session import Collector, Instance, InstanceStatus, ReasonCode, Session, Status
from coral.model.site import Site, SiteKind

_SESSION_COLUMNS = """
    session_id, service_name, function_name, agent_id, epoch_ns(started_at), epoch_ns(expires_at), status,
    coalesce(requested_by, ''), reason, reason_code, coalesce(epoch_ns(ended_at), 0),
    coalesce(epoch_ns(events_removed_at), 0), coalesce(events_removed_why, '')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A session that had not ended, as a restart finds it.

    Attributes:
        session: With its collectors.
        request: The serialized AttachUprobeRequest it began with.
        boot_ids: Collector id to the life of the agent that it belongs to.
    """

    session: Session
    request: bytes
    boot_ids: Mapping[str, str]


def insert_session(connection: duckdb.DuckDBPyConnection, session: Session, request: bytes) -> None:
    """Adds the row of a new session; not its collectors."""
    connection.execute(
        """
        INSERT INTO debug_sessions VALUES
            (?, ?, ?, ?, ?, make_timestamptz(?::BIGINT), make_timestamptz(?::BIGINT), ?, ?, ?, ?, NULL, ?, NULL, '')
        """,
        [
            session.session_id, _one_collector(session), session.service_name, session.function_name, session.agent_id,
            session.started_at_ns // 1000, session.expires_at_ns // 1000, session.status, session.requested_by,
            session.reason, session.reason_code, request,
        ],
    )  # fmt: skip


def update_session(connection: duckdb.DuckDBPyConnection, session: Session) -> None:
    """Writes what changes in a session: where it stands, and on which agent."""
    connection.execute(
        """
        UPDATE debug_sessions SET collector_id = ?, agent_id = ?, status = ?, reason = ?, reason_code = ?,
            ended_at = CASE WHEN ? = 0 THEN NULL ELSE make_timestamptz(?::BIGINT) END
        WHERE session_id = ?
        """,
        [
            _one_collector(session), session.agent_id, session.status, session.reason, session.reason_code,
            session.ended_at_ns // 1000, session.ended_at_ns // 1000, session.session_id,
        ],
    )  # fmt: skip


def _one_collector(session: Session) -> str:
    """The collector of a session that has one agent: the latest."""
    return session.collectors[-1].collector_id if session.agent_id and session.collectors else ""


def delete_sessions(connection: duckdb.DuckDBPyConnection, session_ids: Sequence[str]) -> None:
    """Removes sessions with all that belongs to them."""
    ids = [list(session_ids)]
    connection.execute(
        """
        DELETE FROM debug_instances WHERE collector_id IN
            (SELECT collector_id FROM debug_collectors WHERE list_contains(?::VARCHAR[], session_id))
        """,
        ids,
    )
    connection.execute("DELETE FROM debug_collectors WHERE list_contains(?::VARCHAR[], session_id)", ids)
    connection.execute("DELETE FROM debug_sessions WHERE list_contains(?::VARCHAR[], session_id)", ids)


def find_sessions(
    connection: duckdb.DuckDBPyConnection,
    *,
    service_name: str = "",
    status: str = "",
    session_id: str = "",
    before: str = "",
    limit: int,
) -> list[Session]:
    """Sessions that match, newest first; session ids sort by time.

    Args:
        connection: A cursor.
        service_name: Only of this service; empty for all.
        status: Only in this state; empty for all.
        session_id: Only this one; empty for all.
        before: Only older ones than this session id; empty for all.
        limit: At most so many.
    """
    found = connection.execute(
        f"""
        SELECT {_SESSION_COLUMNS} FROM debug_sessions
        WHERE (? = '' OR service_name = ?) AND (? = '' OR status = ?) AND (? = '' OR session_id = ?)
          AND (? = '' OR session_id < ?)
        ORDER BY session_id DESC LIMIT ?
        """,
        [service_name, service_name, status, status, session_id, session_id, before, before, limit],
    ).fetchall()
    sessions = [_session(row) for row in found]
    collectors = _collectors(connection, [session.session_id for session in sessions])
    return [
        replace(session, collectors=tuple(collector for collector, _ in collectors.get(session.session_id, ())))
        for session in sessions
    ]


def unended(connection: duckdb.DuckDBPyConnection) -> list[Kept]:
    """The sessions that were pending or active, oldest first."""
    found = connection.execute(
        f"SELECT {_SESSION_COLUMNS}, request FROM debug_sessions WHERE status IN ('pending', 'active') ORDER BY session_id"
    ).fetchall()
    collectors = _collectors(connection, [row[0] for row in found])
    kept = []
    for row in found:
        mine = collectors.get(row[0], [])
        kept.append(
            Kept(
                session=replace(_session(row), collectors=tuple(collector for collector, _ in mine)),
                request=bytes(row[-1]),
                boot_ids={collector.collector_id: boot_id for collector, boot_id in mine},
            )
        )
    return kept


def ended_early(connection: duckdb.DuckDBPyConnection, now_ns: int) -> list[Session]:
    """The sessions that are over although their time is not, with their collectors."""
    found = connection.execute(
        f"""
        SELECT {_SESSION_COLUMNS} FROM debug_sessions
        WHERE expires_at > make_timestamptz(?::BIGINT) AND status NOT IN ('pending', 'active') ORDER BY session_id
        """,
        [now_ns // 1000],
    ).fetchall()
    collectors = _collectors(connection, [row[0] for row in found])
    return [
        replace(_session(row), collectors=tuple(collector for collector, _ in collectors.get(row[0], ()))) for row in found
    ]


def ended_sessions(
    connection: duckdb.DuckDBPyConnection, *, before_ns: int | None, service_name: str, session_id: str
) -> list[tuple[str, str, str, int]]:
    """Session id, service, function and end of the sessions that have ended, oldest first.

    Args:
        connection: A cursor.
        before_ns: Only what ended before this time; None for all.
        service_name: Only of this service; empty for all.
        session_id: Only this one; empty for all.
    """
    found = connection.execute(
        """
        SELECT session_id, service_name, function_name, epoch_ns(ended_at) FROM debug_sessions
        WHERE ended_at IS NOT NULL AND (?::BIGINT IS NULL OR ended_at < make_timestamptz(?::BIGINT))
          AND (? = '' OR service_name = ?) AND (? = '' OR session_id = ?)
        ORDER BY ended_at, session_id
        """,
        [
            before_ns, None if before_ns is None else before_ns // 1000, service_name, service_name, session_id, session_id,
        ],
    ).fetchall()  # fmt: skip
    return [(row[0], row[1], row[2], row[3]) for row in found]


def ended_before(connection: duckdb.DuckDBPyConnection, when_ns: int, *, limit: int) -> list[str]:
    """The ids of the sessions that ended before ``when_ns``, oldest first."""
    found = connection.execute(
        """
        SELECT session_id FROM debug_sessions WHERE ended_at < make_timestamptz(?::BIGINT)
        ORDER BY ended_at LIMIT ?
        """,
        [when_ns // 1000, limit],
    ).fetchall()
    return [row[0] for row in found]


def oldest_with_events(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Of the sessions that have ended and have their events still, the one that ended first; None if there is none."""
    row = connection.execute(
        """
        SELECT session_id FROM debug_sessions WHERE ended_at IS NOT NULL AND events_removed_at IS NULL
        ORDER BY ended_at, session_id LIMIT 1
        """
    ).fetchone()
    return row[0] if row else None


def known_sessions(connection: duckdb.DuckDBPyConnection, session_ids: Sequence[str]) -> set[str]:
    """Which of some sessions there are."""
    found = connection.execute(
        "SELECT session_id FROM debug_sessions WHERE list_contains(?::VARCHAR[], session_id)", [list(session_ids)]
    ).fetchall()
    return {session_id for (session_id,) in found}


def note_events_removed(
    connection: duckdb.DuckDBPyConnection, session_ids: Sequence[str] | None, *, when_ns: int, why: str
) -> None:
    """Has sessions say that their events are gone; those that say so already stay as they are.

    Args:
        connection: The writer's.
        session_ids: Which; None for all that began before.
        when_ns: Since when.
        why: Why.
    """
    connection.execute(
        """
        UPDATE debug_sessions SET events_removed_at = make_timestamptz(?::BIGINT), events_removed_why = ?
        WHERE events_removed_at IS NULL AND started_at < make_timestamptz(?::BIGINT)
          AND (? OR list_contains(?::VARCHAR[], session_id))
        """,
        [when_ns // 1000, why, when_ns // 1000, session_ids is None, list(session_ids or ())],
    )


def _session(row: Sequence[Any]) -> Session:
    return Session(
        session_id=row[0],
        service_name=row[1],
        function_name=row[2],
        agent_id=row[3],
        started_at_ns=row[4],
        expires_at_ns=row[5],
        status=Status(row[6]),
        requested_by=row[7],
        reason=row[8],
        reason_code=ReasonCode(row[9]),
        ended_at_ns=row[10],
        events_removed_at_ns=row[11],
        events_removed_why=row[12],
    )


def _collectors(connection: duckdb.DuckDBPyConnection, session_ids: Sequence[str]) -> dict[str, list[tuple[Collector, str]]]:
    """Session id to its collectors, oldest first, each with the life of its agent."""
    found = connection.execute(
        """
        SELECT session_id, collector_id, agent_id, status, reason, reason_code, ledger, unknown_intervals, boot_id
        FROM debug_collectors WHERE list_contains(?::VARCHAR[], session_id) ORDER BY collector_id
        """,
        [list(session_ids)],
    ).fetchall()
    instances = _instances(connection, [row[1] for row in found])
    by_session: dict[str, list[tuple[Collector, str]]] = {}
    for row in found:
        collector = Collector(
            collector_id=row[1],
            agent_id=row[2],
            status=Status(row[3]),
            reason=row[4],
            reason_code=ReasonCode(row[5]),
            ledger=replace(ledger_of(row[6]), unknown_intervals=intervals_of(row[7])),
            instances=tuple(instances.get(row[1], ())),
        )
        by_session.setdefault(row[0], []).append((collector, row[8]))
    return by_session


def _instances(connection: duckdb.DuckDBPyConnection, collector_ids: Iterable[str]) -> dict[str, list[Instance]]:
    found = connection.execute(
        "SELECT * FROM debug_instances WHERE list_contains(?::VARCHAR[], collector_id) ORDER BY collector_id, pid",
        [list(collector_ids)],
    ).fetchall()
    by_collector: dict[str, list[Instance]] = {}
    for row in found:
        by_collector.setdefault(row[0], []).append(
            Instance(
                pid=row[1],
                start_time_ns=row[2],
                executable=row[3],
                build_id=row[4],
                image_id=row[5],
                function_name=row[6],
                status=InstanceStatus(row[7]),
                reason=row[8],
                method=row[9],
                sites=tuple(
                    Site(offset=FileOffset(site["offset"]), kind=SiteKind(site["kind"]), reason=site["reason"])
                    for site in row[10]
                ),
                exit_status=row[11],
            )
        )
    return by_collector
