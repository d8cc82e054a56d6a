"""Makes, lists and ends the tokens of users."""

from __future__ import annotations

import time
from collections.abc import Sequence

from coral.cli.documents import Document
from coral.cli.listings import emit_items
from coral.cli.options import Globals
from coral.cli.output import emit, emit_document, emit_line, narrate
from coral.cli.tables import emit_table
from coral.cli.times import local_moment, rfc3339
from coral.client.access import AccessClient
from coral.client.colony import ColonyClient
from coral.wire._generated.colony.v1 import access_pb2
from coral.wire.convert import timestamp_ns


async def create_token(options: Globals, name: str, *, role: str, life_ns: int | None, services: Sequence[str]) -> None:
    """Makes a token and writes it to stdout, alone on its line; what it is good for goes to stderr."""
    async with ColonyClient(options.endpoint()) as colony:
        made = await AccessClient(colony).create_token(name, role=role, life_ns=life_ns, services=services)
    if options.form == "table":
        narrate(f"Token of {made.described.name} ({_good_for(made.described)}). It is not shown again.")
        emit(made.token + "\n")
    else:
        write = emit_document if options.form == "json" else emit_line
        write({"token": made.token, **token_document(made.described)})


async def show_tokens(options: Globals, *, ended: bool) -> None:
    """Lists tokens."""
    async with ColonyClient(options.endpoint()) as colony:
        tokens = await AccessClient(colony).tokens(ended=ended)
    if options.form != "table":
        emit_items(options, [token_document(token) for token in tokens])
    elif not tokens:
        narrate("No token.")
    else:
        now_ns = time.time_ns()
        rows = [
            (
                token.name,
                token.role,
                ", ".join(token.services) or "all",
                token.status,
                local_moment(timestamp_ns(token.expires_at), now_ns=now_ns) if token.HasField("expires_at") else "never",
                local_moment(timestamp_ns(token.last_used_at), now_ns=now_ns) if token.HasField("last_used_at") else "-",
                token.created_by,
            )
            for token in tokens
        ]
        columns = ("NAME", "ROLE", "SERVICES", "STATUS", "EXPIRES", "LAST USED", "CREATED BY")
        emit_table(columns, rows, whole=("NAME", "ROLE", "STATUS"), spare=("CREATED BY",), color=options.color)


async def revoke_token(options: Globals, name: str) -> None:
    """Ends a token, and says so."""
    async with ColonyClient(options.endpoint()) as colony:
        revoked = await AccessClient(colony).revoke_token(name)
    if options.form == "table":
        which = (
            "Tokens of {} that were issued until now were revoked."
            if name.startswith("oidc:")
            else "The token of {} was revoked."
        )
        narrate(which.format(revoked.name))
    else:
        (emit_document if options.form == "json" else emit_line)(token_document(revoked))


def token_document(token: access_pb2.AccessToken) -> Document:
    """A token as JSON has it; without its secret, which nobody has."""

    def moment(field: str) -> str | None:
        return rfc3339(timestamp_ns(getattr(token, field))) if token.HasField(field) else None  # type: ignore[arg-type]

    return {
        "token_id": token.token_id,
        "name": token.name,
        "role": token.role,
        "services": list(token.services),
        "status": token.status,
        "created_at": moment("created_at"),
        "created_by": token.created_by,
        "expires_at": moment("expires_at"),
        "revoked_at": moment("revoked_at"),
        "last_used_at": moment("last_used_at"),
    }


def _good_for(token: access_pb2.AccessToken) -> str:
    services = ", ".join(token.services) or "all services"
    ends = f", until {rfc3339(timestamp_ns(token.expires_at))}" if token.HasField("expires_at") else ""
    return f"{token.role}, {services}{ends}"
