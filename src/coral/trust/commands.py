"""Commands of a colony to an agent, signed: an agent does nothing that its colony has not asked *it* for, *now*, *once*.

The certificate that a connection shows proves who is at its other end; the signature proves it for each command, so that what
stands in between (a proxy, a stolen connection, a colony's certificate that got into other hands) can neither make one up nor
send one twice. The envelope travels as metadata (``coral-command-bin``): 64 bytes of Ed25519 signature (RFC 8032) over the
rest, which is JSON with sorted keys. It names the agent and its present life, the method, the SHA-256 of the request's bytes,
the time, and a nonce.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from coral.model.errors import FailedPrecondition, PermissionDenied, ResourceExhausted, Unavailable

WINDOW_S = 60
"""How old, or how far in the future, a command may be: for clocks that differ, and queues."""

MAX_NONCES = 100_000
"""Of two minutes; an honest colony sends a few a second."""

_SIGNATURE_BYTES = 64
_MAX_BYTES = 8 << 10
_DOMAIN = b"coral-command-v1\n"
"""Signed along, so that a signature for something else is never one of a command."""
_FIELDS = {"agent_id": str, "boot_id": str, "issued_at_ns": int, "method": str, "nonce": str, "request_sha256": str}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom a command is for.

    Attributes:
        agent_id: The agent.
        boot_id: The life of it that the colony knows; what was sent to an earlier one is not for this one.
    """

    agent_id: str
    boot_id: str


class Signer:
    """Signs the commands of a colony."""

    def __init__(self, key_pem: bytes) -> None:
        """Takes the private key.

        Raises:
            FailedPrecondition: It is no Ed25519 key.
        """
        try:
            key = serialization.load_pem_private_key(key_pem, None)
        except (ValueError, TypeError) as error:
            raise FailedPrecondition(f"The command key cannot be read: {error}.", hint=_RESTORE) from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise FailedPrecondition("The command key is not an Ed25519 key.", hint=_RESTORE)
        self._key = key

    def sign(self, target: Target, method: str, request: bytes, *, issued_at_ns: int | None = None) -> bytes:
        """The envelope of a command.

        Args:
            target: Whom it is for.
            method: The full name of the RPC.
            request: The bytes of the request, as they are sent.
            issued_at_ns: When, wall clock; None for now.
        """
        payload = json.dumps(
            {
                "agent_id": target.agent_id,
                "boot_id": target.boot_id,
                "issued_at_ns": time.time_ns() if issued_at_ns is None else issued_at_ns,
                "method": method,
                "nonce": secrets.token_hex(16),
                "request_sha256": hashlib.sha256(request).hexdigest(),
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        return self._key.sign(_DOMAIN + payload) + payload


class Verifier:
    """Accepts the commands of one colony to one life of an agent, each once."""

    def __init__(self, key_pem: bytes, target: Target, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Takes the colony's public key, as it was when the agent joined.

        Args:
            key_pem: The key.
            target: The agent, and its life.
            clock_ns: The wall clock.

        Raises:
            FailedPrecondition: It is no Ed25519 key.
        """
        try:
            key = serialization.load_pem_public_key(key_pem)
        except ValueError as error:
            raise FailedPrecondition(f"The colony's command key cannot be read: {error}.", hint=_JOIN) from None
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise FailedPrecondition("The colony's command key is not an Ed25519 key.", hint=_JOIN)
        self._key = key
        self._target = target
        self._clock_ns = clock_ns
        self._seen: OrderedDict[str, int] = OrderedDict()

    def accept(self, envelope: bytes, method: str, request: bytes) -> None:
        """Returns when the command is the colony's, for this agent, this request, now, and for the first time.

        Args:
            envelope: As ``Signer.sign`` made it.
            method: The full name of the RPC that came with it.
            request: The bytes of the request, as they came.

        Raises:
            PermissionDenied: It is not; says what is wrong with it.
            Unavailable: It was for an earlier life of the agent, which the colony has not heard the end of.
            ResourceExhausted: So many came that those seen cannot be remembered.
        """
        fields = self._opened(envelope)
        if fields["agent_id"] != self._target.agent_id:
            raise PermissionDenied(
                f"The command is for agent {fields['agent_id']!r}, this is {self._target.agent_id!r}.",
                hint="Somebody passes on commands that are not for them.",
            )
        if fields["method"] != method or fields["request_sha256"] != hashlib.sha256(request).hexdigest():
            raise PermissionDenied(
                f"The signature is for another request than this {method}.", hint="It was changed on its way, or made up."
            )
        self._check_time(fields["issued_at_ns"])
        if fields["boot_id"] != self._target.boot_id:
            raise Unavailable(
                "The command was issued for an earlier life of this agent.", hint="Try again once it has registered."
            )
        self._remember(fields["nonce"])

    def _opened(self, envelope: bytes) -> dict[str, Any]:
        if not _SIGNATURE_BYTES < len(envelope) <= _MAX_BYTES:
            raise PermissionDenied("The command's signature has no valid length.", hint=_UNSIGNED)
        signature, payload = envelope[:_SIGNATURE_BYTES], envelope[_SIGNATURE_BYTES:]
        try:
            self._key.verify(signature, _DOMAIN + payload)
        except InvalidSignature:
            raise PermissionDenied(
                "The command is not signed by the colony that this agent joined.", hint=_UNSIGNED
            ) from None
        fields: Any = json.loads(payload)
        if not isinstance(fields, dict) or {name: type(value) for name, value in fields.items()} != _FIELDS:
            raise PermissionDenied("The command has a form that this agent does not know.", hint="Do the versions match?")
        return fields

    def _check_time(self, issued_at_ns: int) -> None:
        ahead_s = (issued_at_ns - self._clock_ns()) / 1e9
        if abs(ahead_s) > WINDOW_S:
            where = "ahead of" if ahead_s > 0 else "behind"
            raise PermissionDenied(
                f"The command was issued {abs(ahead_s):.1f} s {where} this agent's clock; {WINDOW_S} s are accepted.",
                hint="It was held back and sent again, or the clocks of colony and agent differ: synchronise both.",
            )

    def _remember(self, nonce: str) -> None:
        now_ns = self._clock_ns()
        forgotten_ns = now_ns - 2 * WINDOW_S * 1_000_000_000  # older ones fail by their time, on either side of the window
        while self._seen and next(iter(self._seen.values())) < forgotten_ns:
            self._seen.popitem(last=False)
        if nonce in self._seen:
            raise PermissionDenied("The command was sent before: it is a replay.", hint="A colony signs each command anew.")
        if len(self._seen) >= MAX_NONCES:
            raise ResourceExhausted("Too many commands in two minutes to tell which came before.", hint="Try again later.")
        self._seen[nonce] = now_ns


_RESTORE = "Restore command.key from a backup; with a new one every agent has to join again."
_JOIN = "Have the agent join its colony again."
_UNSIGNED = "Only the colony that this agent joined commands it."


def new_command_key() -> tuple[bytes, bytes]:
    """A new key for signing: private and public part, PEM."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, public_pem(private)


def public_pem(key_pem: bytes) -> bytes:
    """The public part of a private key, PEM."""
    public = serialization.load_pem_private_key(key_pem, None).public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
