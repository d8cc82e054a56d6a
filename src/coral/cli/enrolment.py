"""Invites hosts and puts them out."""

from __future__ import annotations

import time

from coral.cli.options import Globals
from coral.cli.output import emit, emit_document, emit_line, narrate
from coral.cli.times import local_moment, rfc3339
from coral.client.colony import ColonyClient
from coral.wire._generated.colony.v1 import enrolment_pb2
from coral.wire.convert import duration, timestamp_ns


async def make_invitation(options: Globals, *, life_ns: int | None, agent_id: str, reason: str) -> None:
    """Prints a new invitation: in a table's place the text alone."""
    request = enrolment_pb2.CreateInviteRequest(
        expires=duration(life_ns) if life_ns is not None else None, agent_id=agent_id, reason=reason
    )
    async with ColonyClient(options.endpoint()) as colony:
        made = await colony.invite(request)
    expires_at_ns = timestamp_ns(made.expires_at)
    if options.form != "table":
        write = emit_document if options.form == "json" else emit_line
        write({"token": made.token, "invite_id": made.invite_id, "expires_at": rfc3339(expires_at_ns)})
        return
    emit(made.token + "\n")
    who = f"agent {agent_id!r}" if agent_id else "one agent"
    narrate(f"Good once, for {who}, until {local_moment(expires_at_ns, now_ns=time.time_ns())}.")


async def revoke_agent(options: Globals, agent_id: str, *, reason: str) -> None:
    """Puts an agent out, and says what that ended."""
    request = enrolment_pb2.RevokeAgentRequest(agent_id=agent_id, reason=reason)
    async with ColonyClient(options.endpoint()) as colony:
        done = await colony.revoke_agent(request)
    if options.form != "table":
        write = emit_document if options.form == "json" else emit_line
        write({"agent_id": agent_id, "certificates": done.certificates, "collectors": done.collectors})
        return
    probes = f", and {done.collectors} of its collectors ended" if done.collectors else ""
    narrate(f"Agent {agent_id!r} is out{probes}.")
