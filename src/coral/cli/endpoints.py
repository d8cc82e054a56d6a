"""Which colony a command asks, and with which credential: the line, the environment, and the contexts.

A context's token goes to that context's colony and to no other. A token never travels in plain text: a colony that asks for
one has TLS.
"""

from __future__ import annotations

import os
from pathlib import Path

from coral.cli.contexts import load_contexts
from coral.cli.options import DEFAULT_COLONY, Globals
from coral.client.endpoint import Endpoint
from coral.model.errors import InvalidArgument
from coral.trust.secret_files import read_secret

_MAX_BYTES = 1 << 20


def find_endpoint(options: Globals) -> Endpoint:
    """The colony to ask, how to know it, and what to show it.

    Args:
        options: What the line said.

    Raises:
        InvalidArgument: A file is not there or cannot be one, or of certificate and key only one is given.
        FailedPrecondition: A file with a secret is open to others.
    """
    context = load_contexts().of_colony(options.named)
    address = options.named or (context.colony if context else "") or DEFAULT_COLONY
    ca_file = options.ca or os.environ.get("CORAL_CA", "")
    ca_pem = read_ca(ca_file) if ca_file else (context.ca_pem.encode() if context else None)
    certificate = _certificate(options)
    token = ""
    if ca_pem is not None and certificate is None:
        token = os.environ.get("CORAL_TOKEN", "").strip() or (context.token if context else "")
    return Endpoint(address=address, ca_pem=ca_pem, certificate=certificate, token=token)


def read_ca(path: str) -> bytes:
    """The certificates in a file.

    Raises:
        InvalidArgument: It cannot be read, or has none.
    """
    content = _read(path, "--ca")
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise InvalidArgument(f"{path} holds no certificate.", hint="Give the colony's ca.pem.")
    return content


def _certificate(options: Globals) -> tuple[bytes, bytes] | None:
    if not options.cert and not options.key:
        return None
    if not options.cert or not options.key:
        raise InvalidArgument("A certificate and its key go together.", hint="Give both --cert and --key.")
    return _read(options.cert, "--cert"), read_secret(Path(options.key))


def _read(path: str, flag: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}.", hint=f"Give another file with {flag}.") from None
    if len(content) > _MAX_BYTES:
        raise InvalidArgument(f"{path} is larger than {_MAX_BYTES:,} bytes.", hint=f"Give another file with {flag}.")
    return content
