"""Signing in: a token is asked for, shown to the colony, and kept if the colony knows it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import click

from coral.cli.contexts import Context, load_contexts, save_contexts
from coral.cli.endpoints import read_ca
from coral.cli.options import DEFAULT_COLONY, Globals
from coral.cli.output import narrate
from coral.cli.times import rfc3339
from coral.client.access import AccessClient
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.model.errors import FailedPrecondition, InvalidArgument
from coral.model.text import check_name
from coral.wire.convert import timestamp_ns

_MAX_TOKEN = 8192


async def run_login(options: Globals, *, name: str | None) -> None:
    """Signs in to the colony that the line names, else to that of the current context.

    Args:
        options: What the line said.
        name: How to call the context; None for the colony's address, or the name that its context has.

    Raises:
        InvalidArgument: What was given is no token, or there is no certificate to know the colony by.
        FailedPrecondition: The colony asks for no credentials, or the contexts cannot be kept.
        Unauthenticated: The colony does not know the token; nothing is kept.
    """
    contexts = load_contexts()
    known = contexts.of_colony(options.named)
    address = options.named or (known.colony if known else DEFAULT_COLONY)
    ca_file = options.ca or os.environ.get("CORAL_CA", "")
    if ca_file:
        ca_pem = read_ca(ca_file)
    elif known is not None:
        ca_pem = known.ca_pem.encode()
    else:
        raise InvalidArgument(
            f"There is nothing to know the colony at {address} by.",
            hint="Give its ca.pem with --ca: it is in the colony's state directory, and no secret.",
        )
    endpoint = replace(Endpoint(address=address, ca_pem=ca_pem), token=_read_token(address))
    async with ColonyClient(endpoint) as colony:
        who = await AccessClient(colony).who_am_i()
    if who.kind != "user":
        raise FailedPrecondition(f"The colony at {address} takes that for no user's.", hint="Ask an admin for a token.")
    context = Context(
        name=check_name(name, "the context's name") if name else (known.name if known else address),
        colony=address,
        ca_pem=ca_pem.decode("ascii", "strict"),
        token=endpoint.token,
        user=who.name,
    )
    save_contexts(contexts.with_context(context))
    ends = f", until {rfc3339(timestamp_ns(who.expires_at))}" if who.HasField("expires_at") else ""
    narrate(f"Signed in to {address} as {who.name} ({', '.join(who.roles) or 'no role'}{ends}); context {context.name}.")


def _read_token(address: str) -> str:
    """The token, from a prompt that does not show it, or from stdin."""
    if sys.stdin.isatty():
        text = str(click.prompt(f"Token for {address}", hide_input=True, err=True))
    else:
        text = sys.stdin.readline(_MAX_TOKEN + 2)
    token = text.strip()
    if not token or len(token) > _MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidArgument("That is no token.", hint="Give the line that `coral token create` printed.")
    return token
