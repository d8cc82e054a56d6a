"""The keys of a colony, as they lie in its state directory.

| file | what it is |
| --- | --- |
| ``ca.pem``, ``ca.key`` | the authority that users trust, and that agents are issued by |
| ``server.pem``, ``server.key`` | the colony's own certificate, renewed by itself for the same key |
| ``command.key`` | signs what the colony wants of its agents (Ed25519) |

``ca.pem`` is written last: where it is, the others are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from coral.model.errors import FailedPrecondition
from coral.trust.authority import Authority, KeyPair, canonical, host_names_of, life_of, new_key, private_pem, public_key_of
from coral.trust.commands import new_command_key
from coral.trust.secret_files import create_secret, read_secret, write_secret

CA = "ca.pem"
CA_KEY = "ca.key"
SERVER = "server.pem"
SERVER_KEY = "server.key"
COMMAND_KEY = "command.key"

RENEW_AT = 2 / 3
"""Of a certificate's life, when it is renewed: the rest is for colonies that are away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColonyKeys:
    """What a colony proves itself with. Secrets do not show themselves.

    Attributes:
        colony_id: Its name in certificates.
        authority: Issues certificates.
        server: The colony's own certificate and key.
        command_key: Signs commands; PEM.
    """

    colony_id: str
    authority: Authority = field(repr=False)
    server: KeyPair
    command_key: bytes = field(repr=False)

    @classmethod
    def create(cls, colony_id: str, names: Sequence[str], *, server_lifetime_s: float) -> Self:
        """New ones for a new colony; nothing is written.

        Args:
            colony_id: Its name in certificates.
            names: Host names and addresses by which users reach it.
            server_lifetime_s: For how long its own certificate is good.

        Raises:
            InvalidArgument: A name cannot be one.
        """
        authority, key = Authority.create(colony_id), new_key()
        certificate = authority.issue_colony(key.public_key(), names, lifetime_s=server_lifetime_s)
        return cls(
            colony_id=colony_id,
            authority=authority,
            server=KeyPair(certificate=certificate, key=private_pem(key)),
            command_key=new_command_key()[0],
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Those in a state directory.

        Raises:
            NotFound: One is missing.
            FailedPrecondition: One is open to others, cannot be read, or does not belong to the rest.
        """
        authority = Authority(KeyPair(certificate=read_secret(folder / CA), key=read_secret(folder / CA_KEY)))
        return cls(
            colony_id=authority.colony_id,
            authority=authority,
            server=KeyPair(certificate=read_secret(folder / SERVER), key=read_secret(folder / SERVER_KEY)),
            command_key=read_secret(folder / COMMAND_KEY),
        )

    def save_all_but_ca(self, folder: Path) -> None:
        """Writes what a colony is not one without; there is none yet.

        Raises:
            OSError: It cannot be written.
        """
        write_secret(folder / CA_KEY, self.authority.pair.key)
        write_secret(folder / SERVER_KEY, self.server.key)
        write_secret(folder / SERVER, self.server.certificate)
        write_secret(folder / COMMAND_KEY, self.command_key)

    def save_ca(self, folder: Path) -> None:
        """Writes the certificate of the authority, which makes the folder a colony's.

        Raises:
            FileExistsError: It is one already; it stays that.
            OSError: It cannot be written.
        """
        create_secret(folder / CA, self.authority.pair.certificate)

    def is_for(self, names: Sequence[str]) -> bool:
        """Whether the colony's certificate is for all of these host names and addresses."""
        return {canonical(name) for name in names} <= set(host_names_of(self.server.certificate))

    def renewed(self, *, server_lifetime_s: float, names: Sequence[str] = ()) -> Self:
        """The same with a new certificate for the colony: same key, same names and these.

        Raises:
            InvalidArgument: A name cannot be one.
        """
        key, had = public_key_of(self.server.key), host_names_of(self.server.certificate)
        certificate = self.authority.issue_colony(key, [*had, *names], lifetime_s=server_lifetime_s)
        return replace(self, server=KeyPair(certificate=certificate, key=self.server.key))


def is_initialised(folder: Path) -> bool:
    """Whether a state directory has the keys of a colony."""
    return (folder / CA).exists()


def renewal_due_in_s(certificate: bytes) -> float:
    """In how many seconds a certificate is to be renewed; negative when it should have been.

    Raises:
        FailedPrecondition: It cannot be read.
    """
    try:
        begins_ns, ends_ns = life_of(certificate)
    except ValueError as error:
        raise FailedPrecondition(f"A certificate cannot be read: {error}.", hint="Restore it from a backup.") from None
    return (begins_ns + RENEW_AT * (ends_ns - begins_ns) - time.time_ns()) / 1e9
