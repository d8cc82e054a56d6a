"""The tables of both files, as numbered migrations. A migration that has run is never edited; a change is a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from coral.model.errors import FailedPrecondition


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step of a schema.

    Attributes:
        number: Its place in the order, from 1.
        name: What it does, for ``schema_migrations``.
        statements: What it runs, in one transaction.
    """

    number: int
    name: str
    statements: tuple[str, ...]


_MIGRATIONS_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        number INTEGER NOT NULL, name VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL)
"""

CONTROL: Sequence[Migration] = (
    Migration(
        number=1,
        name="sessions, registry and audit",
        statements=(
            # The first nine columns are those of the system this grew from, in its order; empty agent_id: spans several.
            # The other tables have no keys: the one writer knows what is there, and an index doubles the cost of a write.
            """
            CREATE TABLE debug_sessions (
                session_id VARCHAR PRIMARY KEY,
                collector_id VARCHAR,
                service_name VARCHAR NOT NULL,
                function_name VARCHAR NOT NULL,
                agent_id VARCHAR NOT NULL,
                started_at TIMESTAMPTZ NOT NULL,
                expires_at TIMESTAMPTZ NOT NULL,
                status VARCHAR NOT NULL,
                requested_by VARCHAR,
                reason VARCHAR NOT NULL,
                reason_code VARCHAR NOT NULL,
                ended_at TIMESTAMPTZ,
                request BLOB NOT NULL)
            """,
            """
            CREATE TABLE debug_collectors (
                collector_id VARCHAR NOT NULL,
                session_id VARCHAR NOT NULL,
                agent_id VARCHAR NOT NULL,
                boot_id VARCHAR NOT NULL,
                status VARCHAR NOT NULL,
                reason VARCHAR NOT NULL,
                reason_code VARCHAR NOT NULL,
                ledger VARCHAR NOT NULL,
                unknown_intervals VARCHAR NOT NULL)
            """,
            """
            CREATE TABLE debug_instances (
                collector_id VARCHAR NOT NULL,
                pid INTEGER NOT NULL,
                start_time_ns BIGINT NOT NULL,
                executable VARCHAR NOT NULL,
                build_id VARCHAR NOT NULL,
                image_id VARCHAR NOT NULL,
                function_name VARCHAR NOT NULL,
                status VARCHAR NOT NULL,
                reason VARCHAR NOT NULL,
                method VARCHAR NOT NULL,
                sites STRUCT("offset" UBIGINT, kind VARCHAR, reason VARCHAR)[] NOT NULL,
                exit_status INTEGER)
            """,
            """
            CREATE TABLE agents (
                agent_id VARCHAR NOT NULL,
                address VARCHAR NOT NULL,
                version VARCHAR NOT NULL,
                hostname VARCHAR NOT NULL,
                boot_id VARCHAR NOT NULL,
                kernel VARCHAR NOT NULL,
                methods VARCHAR[] NOT NULL,
                last_seen_at TIMESTAMPTZ NOT NULL)
            """,
            """
            CREATE TABLE services (
                name VARCHAR NOT NULL,
                agent_id VARCHAR NOT NULL,
                instances UINTEGER NOT NULL,
                rule VARCHAR NOT NULL,
                sdk_enabled BOOLEAN NOT NULL,
                sdk_addr VARCHAR NOT NULL,
                sdk_version VARCHAR NOT NULL)
            """,
            # action is the name of the RPC, reason the caller's own; for QueryDatabase it is the statement.
            """
            CREATE TABLE audit_log (
                sequence BIGINT NOT NULL,
                "time" TIMESTAMPTZ NOT NULL,
                principal VARCHAR NOT NULL,
                "role" VARCHAR NOT NULL,
                address VARCHAR NOT NULL,
                action VARCHAR NOT NULL,
                service_name VARCHAR NOT NULL,
                function_name VARCHAR NOT NULL,
                session_id VARCHAR NOT NULL,
                agent_id VARCHAR NOT NULL,
                reason VARCHAR NOT NULL,
                decision VARCHAR NOT NULL,
                outcome VARCHAR NOT NULL)
            """,
        ),
    ),
    Migration(
        number=2,
        name="users' tokens",
        statements=(
            """
            CREATE TABLE access_tokens (
                token_id VARCHAR NOT NULL,
                name VARCHAR NOT NULL,
                digest BLOB NOT NULL,
                "role" VARCHAR NOT NULL,
                services VARCHAR[] NOT NULL,
                created_at TIMESTAMPTZ NOT NULL,
                created_by VARCHAR NOT NULL,
                expires_at TIMESTAMPTZ,
                revoked_at TIMESTAMPTZ)
            """,
        ),
    ),
    Migration(
        number=3,
        name="invitations and certificates of agents",
        statements=(
            """
            CREATE TABLE agent_invitations (
                invite_id VARCHAR NOT NULL,
                digest BLOB NOT NULL,
                agent_id VARCHAR NOT NULL,
                created_at TIMESTAMPTZ NOT NULL,
                created_by VARCHAR NOT NULL,
                expires_at TIMESTAMPTZ NOT NULL,
                used_by VARCHAR NOT NULL,
                used_key BLOB NOT NULL)
            """,
            """
            CREATE TABLE agent_certificates (
                serial VARCHAR NOT NULL,
                agent_id VARCHAR NOT NULL,
                issued_at TIMESTAMPTZ NOT NULL,
                expires_at TIMESTAMPTZ NOT NULL,
                revoked_at TIMESTAMPTZ)
            """,
        ),
    ),
    Migration(
        number=4,
        name="requests for approval",
        statements=(
            """
            CREATE TABLE approvals (
                approval_id VARCHAR NOT NULL,
                fingerprint VARCHAR NOT NULL,
                state VARCHAR NOT NULL,
                requested_by VARCHAR NOT NULL,
                requester_roles VARCHAR NOT NULL,
                action VARCHAR NOT NULL,
                service_name VARCHAR NOT NULL,
                function_name VARCHAR NOT NULL,
                duration_ns BIGINT NOT NULL,
                capture_values BOOLEAN NOT NULL,
                mode VARCHAR NOT NULL,
                agent_id VARCHAR NOT NULL,
                reason VARCHAR NOT NULL,
                request VARCHAR NOT NULL,
                policy_id VARCHAR NOT NULL,
                policy_reason VARCHAR NOT NULL,
                requested_at TIMESTAMPTZ NOT NULL,
                expires_at TIMESTAMPTZ NOT NULL,
                decided_by VARCHAR NOT NULL,
                decided_at TIMESTAMPTZ,
                "comment" VARCHAR NOT NULL,
                used_at TIMESTAMPTZ)
            """,
        ),
    ),
    Migration(
        number=5,
        name="the chain of the audit log",
        statements=(
            # Rows from before it have neither hash; the chain begins after them.
            "ALTER TABLE audit_log ADD COLUMN previous_hash VARCHAR DEFAULT ''",
            "ALTER TABLE audit_log ADD COLUMN hash VARCHAR DEFAULT ''",
        ),
    ),
    Migration(
        number=6,
        name="sessions whose events are gone",
        statements=(
            "ALTER TABLE debug_sessions ADD COLUMN events_removed_at TIMESTAMPTZ",
            "ALTER TABLE debug_sessions ADD COLUMN events_removed_why VARCHAR DEFAULT ''",
        ),
    ),
    Migration(
        number=7,
        name="users whose tokens of an identity provider were revoked",
        statements=(
            "CREATE TABLE put_out_users (name VARCHAR NOT NULL, out_at TIMESTAMPTZ NOT NULL, until_at TIMESTAMPTZ NOT NULL)",
        ),
    ),
)

EVENTS: Sequence[Migration] = (
    Migration(
        number=1,
        name="events and how far each collector got",
        statements=(
            # The columns of events.batch.SCHEMA in its order, then the session.
            """
            CREATE TABLE uprobe_events (
                timestamp_ns BIGINT NOT NULL,
                collector_id VARCHAR NOT NULL,
                agent_id VARCHAR NOT NULL,
                service_name VARCHAR NOT NULL,
                function_name VARCHAR NOT NULL,
                event_type VARCHAR NOT NULL,
                duration_ns UBIGINT NOT NULL,
                pid INTEGER NOT NULL,
                tid INTEGER NOT NULL,
                args STRUCT(name VARCHAR, "type" VARCHAR, "value" VARCHAR)[],
                return_value STRUCT("type" VARCHAR, "value" VARCHAR, is_error BOOLEAN, error_message VARCHAR),
                labels MAP(VARCHAR, VARCHAR),
                sequence UBIGINT NOT NULL,
                session_id VARCHAR NOT NULL)
            """,
            # Written in the transaction of the events that it covers, so that it is what a restart resumes from. No
            # primary key: rows are rewritten several times a second, which an index would only make dearer, and the one
            # writer inserts each collector once.
            """
            CREATE TABLE collector_progress (
                collector_id VARCHAR NOT NULL,
                session_id VARCHAR NOT NULL,
                last_sequence UBIGINT NOT NULL,
                stored UBIGINT NOT NULL,
                queue_dropped UBIGINT NOT NULL,
                ledger VARCHAR NOT NULL,
                histogram BLOB NOT NULL,
                snapshot_at_ns BIGINT NOT NULL,
                ended BOOLEAN NOT NULL,
                status VARCHAR NOT NULL,
                reason_code VARCHAR NOT NULL)
            """,
        ),
    ),
    Migration(
        number=2,
        name="events without what they have in common",
        statements=(
            """
            CREATE TABLE event_sources (
                source UINTEGER NOT NULL,
                session_id VARCHAR NOT NULL,
                collector_id VARCHAR NOT NULL,
                agent_id VARCHAR NOT NULL,
                service_name VARCHAR NOT NULL,
                function_name VARCHAR NOT NULL,
                event_type VARCHAR NOT NULL)
            """,
            # In the order in which they came, which is nearly that of their times: so DuckDB finds a range of times by the
            # bounds that it keeps for each 122,880 rows.
            """
            CREATE TABLE plain_events (
                timestamp_ns BIGINT NOT NULL,
                source UINTEGER NOT NULL,
                duration_ns UBIGINT NOT NULL,
                pid INTEGER NOT NULL,
                tid INTEGER NOT NULL,
                sequence UBIGINT NOT NULL)
            """,
            # Those with values or labels.
            """
            CREATE TABLE detailed_events (
                timestamp_ns BIGINT NOT NULL,
                source UINTEGER NOT NULL,
                duration_ns UBIGINT NOT NULL,
                pid INTEGER NOT NULL,
                tid INTEGER NOT NULL,
                sequence UBIGINT NOT NULL,
                args STRUCT(name VARCHAR, "type" VARCHAR, "value" VARCHAR)[],
                return_value STRUCT("type" VARCHAR, "value" VARCHAR, is_error BOOLEAN, error_message VARCHAR),
                labels MAP(VARCHAR, VARCHAR))
            """,
            # The slowest events of a session as JSON, longest first; written in the transaction of the events.
            "CREATE TABLE session_results (session_id VARCHAR NOT NULL, slowest VARCHAR NOT NULL)",
            """
            INSERT INTO event_sources
            SELECT row_number() OVER (), * FROM (
                SELECT DISTINCT session_id, collector_id, agent_id, service_name, function_name, event_type
                FROM uprobe_events)
            """,
            """
            INSERT INTO detailed_events
            SELECT timestamp_ns, source, duration_ns, pid, tid, sequence, args, return_value, labels
            FROM uprobe_events JOIN event_sources
                USING (session_id, collector_id, agent_id, service_name, function_name, event_type)
            ORDER BY session_id, timestamp_ns
            """,
            """
            INSERT INTO session_results
            SELECT session_id, to_json(list({
                timestamp_ns: timestamp_ns, collector_id: collector_id, agent_id: agent_id, service_name: service_name,
                function_name: function_name, event_type: event_type, duration_ns: duration_ns, pid: pid, tid: tid,
                args: coalesce(args, []), return_value: return_value, labels: to_json(coalesce(labels, MAP {})),
                sequence: sequence} ORDER BY duration_ns DESC, timestamp_ns, collector_id, sequence))
            FROM (SELECT * FROM uprobe_events WHERE event_type <> 'entry' QUALIFY row_number() OVER (
                PARTITION BY session_id ORDER BY duration_ns DESC, timestamp_ns, collector_id, sequence) <= 10)
            GROUP BY session_id
            """,
            "DROP TABLE uprobe_events",
            """
            CREATE VIEW uprobe_events AS
            SELECT timestamp_ns, collector_id, agent_id, service_name, function_name, event_type, duration_ns, pid, tid,
                args, return_value, labels, sequence, session_id
            FROM (
                SELECT *,
                    []::STRUCT(name VARCHAR, "type" VARCHAR, "value" VARCHAR)[] AS args,
                    NULL::STRUCT("type" VARCHAR, "value" VARCHAR, is_error BOOLEAN, error_message VARCHAR) AS return_value,
                    MAP {}::MAP(VARCHAR, VARCHAR) AS labels
                FROM plain_events
                UNION ALL
                SELECT * FROM detailed_events)
            JOIN event_sources USING (source)
            """,
        ),
    ),
)


def migrate(connection: duckdb.DuckDBPyConnection, migrations: Sequence[Migration], *, file: str) -> None:
    """Brings a database to the newest schema; a step and its row in ``schema_migrations`` are one transaction.

    Args:
        connection: To the database, with nothing else going on.
        migrations: All of them, in order.
        file: Its name, for the message.

    Raises:
        FailedPrecondition: The file was written by a newer Coral.
    """
    connection.execute(_MIGRATIONS_TABLE)
    row = connection.execute("SELECT coalesce(max(number), 0) FROM schema_migrations").fetchone()
    reached = int(row[0]) if row else 0
    newest = migrations[-1].number
    if reached > newest:
        raise FailedPrecondition(
            f"{file} has schema {reached}, this version of Coral knows {newest}.",
            hint="Start the newer version again, or give another --state-dir.",
        )
    for migration in migrations[reached:]:
        connection.begin()
        for statement in migration.statements:
            connection.execute(statement)
        connection.execute("INSERT INTO schema_migrations VALUES (?, ?, now())", [migration.number, migration.name])
        connection.commit()
