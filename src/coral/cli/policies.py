"""Prints what a colony's policies are, and what they would decide."""

from __future__ import annotations

import time
from collections.abc import Iterable

from coral.cli.documents import Document
from coral.cli.options import Globals
from coral.cli.output import emit, emit_document, narrate
from coral.cli.tables import emit_table
from coral.cli.times import local_moment, rfc3339
from coral.client.policy import PolicyClient
from coral.model.text import printable
from coral.wire._generated.colony.v1 import policy_pb2
from coral.wire.convert import timestamp_ns

_SHOWN = 20
"""Names of a function."""
COLUMNS = ("ID", "EFFECT", "WHERE", "APPROVAL", "WHAT")


async def check_colony(options: Globals) -> int:
    """Prints the policies in force; 1 if what is in their folder now is not."""
    async with PolicyClient(options.endpoint()) as colony:
        found = await colony.check()
    if options.form != "table":
        emit_document(
            {
                "ok": not found.faults,
                "enforced": found.enforced,
                "folder": found.folder or None,
                "in_force_since": rfc3339(timestamp_ns(found.in_force_since)),
                "policies": [_document(policy) for policy in found.policies],
                "faults": list(found.faults),
            }
        )
        return 1 if found.faults else 0
    emit_policies(options, found.policies)
    since = local_moment(timestamp_ns(found.in_force_since), now_ns=time.time_ns())
    narrate(f"In force since {since}, from {found.folder or 'no folder: the default ones alone'}.")
    if not found.enforced:
        narrate("This colony asks nobody for a credential, so everybody may do everything.")
    if found.faults:
        narrate("What is in the folder now is not in force:")
        narrate("\n".join(found.faults))
    return 1 if found.faults else 0


async def show_explanation(options: Globals, request: policy_pb2.ExplainPolicyRequest) -> None:
    """Prints what would be decided, and by which policies."""
    async with PolicyClient(options.endpoint()) as colony:
        found = await colony.explain_policy(request)
    if options.form != "table":
        emit_document(
            {
                "decision": found.decision,
                "text": found.text,
                "policies": [_document(policy) for policy in found.policies],
                "roles": list(found.roles),
                "role": found.role or None,
                "names": list(found.names),
            }
        )
        return
    emit(f"{found.decision}: {printable(found.text)}\n")
    if found.names:
        shown = ", ".join(map(printable, found.names[:_SHOWN]))
        more = f", and {len(found.names) - _SHOWN:,} more" if len(found.names) > _SHOWN else ""
        emit(f"\n{printable(request.function_name)} stands for what is called {shown}{more}.\n")
    if found.policies:
        emit("\n")
        emit_policies(options, found.policies)


def emit_policies(options: Globals, policies: Iterable[policy_pb2.Policy]) -> None:
    """Writes a table of policies."""
    rows = [
        (
            one.policy_id,
            one.effect,
            f"{one.source}:{one.line}",
            (one.approval or "yes") if one.HasField("approval") else "-",
            one.description,
        )
        for one in policies
    ]
    emit_table(COLUMNS, rows, whole=("ID",), color=options.color)


def _document(policy: policy_pb2.Policy) -> Document:
    return {
        "policy_id": policy.policy_id,
        "effect": policy.effect,
        "source": policy.source,
        "line": policy.line,
        "description": policy.description,
        "approval": policy.approval if policy.HasField("approval") else None,
    }
