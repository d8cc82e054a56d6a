"""Checkpoints of the audit log: records by which the colony signs how far the chain had come.

Hashes alone show that a record was changed and left inconsistent; who can write the log could change one and compute every
later hash anew. A checkpoint is a record like any other whose ``reason`` holds ``first=N table=N key=ID signature=BASE64``:
an Ed25519 signature over its own sequence and time, the hash of the record before it, and

- ``first``: which record the kept part of the log begins with; older ones went by retention. Who removes records from the
  beginning cannot sign that;
- ``table``: up to which record the table was known to hold what the copy holds, so that a restart can tell what a crash left
  undone from what somebody removed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coral.model.errors import FailedPrecondition, InvalidArgument, NotFound
from coral.trust.chain import Record
from coral.trust.secret_files import create_secret, read_secret

ACTION = "AuditCheckpoint"
PRINCIPAL = "colony"
KEY_FILE = "audit.key"
PUBLIC_FILE = "audit.pub"
LATEST_FILE = "audit-checkpoint.json"
"""The newest checkpoint record, beside the log, and worth keeping elsewhere too."""

_FORM = re.compile(r"first=(\d{1,16}) table=(\d{1,16}) key=([0-9a-f]{16}) signature=([A-Za-z0-9+/]{86}==)")

_WHICH = f"Give the {PUBLIC_FILE} of the colony's state directory."

PublicKeys = Mapping[str, Ed25519PublicKey]
"""By their ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a checkpoint record says beside what every record does.

    Attributes:
        first: The sequence that the kept part of the log begins with.
        table: The last sequence that was known to be in the table.
        key_id: Which key signed.
        signature: Over ``statement``.
    """

    first: int
    table: int
    key_id: str
    signature: bytes


class CheckpointKey:
    """The key that signs checkpoints."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key()
        self.id = key_id(self.public)

    @classmethod
    def ephemeral(cls) -> CheckpointKey:
        """A key that is forgotten with the process: for a log that is, too."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def of_folder(cls, folder: Path) -> CheckpointKey:
        """The key kept in a folder, made there if there is none; its public part lies beside it.

        Raises:
            FailedPrecondition: It cannot be read or written, others can read it, or it is of another kind.
        """
        path = folder / KEY_FILE
        try:
            try:
                pem = read_secret(path)
            except NotFound:
                pem = Ed25519PrivateKey.generate().private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
                create_secret(path, pem)
            key = cls(_private(pem, path))
            public = folder / PUBLIC_FILE
            if not public.exists():
                create_secret(public, key.public_pem())
        except OSError as error:
            raise FailedPrecondition(
                f"The key of the audit log, {path}, cannot be used: {error.strerror}.", hint="Look at the state directory."
            ) from None
        return key

    def public_pem(self) -> bytes:
        """What others need to check signatures."""
        return self.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def sign(self, record: Record, *, first: int, table: int) -> Record:
        """A checkpoint record, with its signature and its hash.

        Args:
            record: It without both.
            first: See ``Checkpoint``.
            table: Likewise.
        """
        signature = self._private.sign(statement(record, first=first, table=table))
        reason = f"first={first} table={table} key={self.id} signature={base64.b64encode(signature).decode()}"
        signed = replace(record, reason=reason)
        return replace(signed, hash=signed.digest())


def statement(record: Record, *, first: int, table: int) -> bytes:
    """The bytes that are signed."""
    return (
        f"coral audit checkpoint v1\n{record.sequence}\n{record.time}\n{record.previous_hash}\nfirst={first}\ntable={table}\n"
    ).encode()


def read_checkpoint(record: Record) -> Checkpoint | None:
    """What a checkpoint record says; None if it is another record. The signature is not checked.

    Raises:
        ValueError: It calls itself a checkpoint, and is none.
    """
    if record.action != ACTION:
        return None
    found = _FORM.fullmatch(record.reason)
    if found is None:
        raise ValueError("it has no signature")
    try:
        signature = base64.b64decode(found[4], validate=True)
    except binascii.Error:
        raise ValueError("its signature is none") from None
    return Checkpoint(first=int(found[1]), table=int(found[2]), key_id=found[3], signature=signature)


def check_signature(record: Record, checkpoint: Checkpoint, keys: PublicKeys) -> None:
    """Checks who signed a checkpoint.

    Raises:
        ValueError: None of ``keys`` did; says how.
    """
    key = keys.get(checkpoint.key_id)
    if key is None:
        raise ValueError(f"it is signed by the key {checkpoint.key_id}, which is not one of {', '.join(keys)}")
    try:
        key.verify(checkpoint.signature, statement(record, first=checkpoint.first, table=checkpoint.table))
    except InvalidSignature:
        raise ValueError("its signature does not hold") from None


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file.

    Raises:
        InvalidArgument: There is none.
    """
    try:
        with path.open("rb") as file:
            key = serialization.load_pem_public_key(file.read(65_536))
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}.", hint=_WHICH) from None
    except ValueError:
        raise InvalidArgument(f"{path} holds no public key.", hint=_WHICH) from None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidArgument(f"The key in {path} is not an Ed25519 key.", hint=_WHICH)
    return key


def key_id(public: Ed25519PublicKey) -> str:
    """The first 16 digits of the SHA-256 of a public key's 32 bytes."""
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _private(pem: bytes, path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except ValueError:
        raise FailedPrecondition(
            f"{path} holds no private key.", hint="Restore it; without it, nobody can sign for what the log holds."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise FailedPrecondition(f"The key in {path} is not an Ed25519 key.", hint="Restore the one that was there.")
    return key
