"""Where a server is, how to know that it is the right one, and what to show it."""

from __future__ import annotations

from dataclasses import dataclass, field

from coral.model.errors import FailedPrecondition
from coral.wire.address import is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server as its clients reach it. Secrets do not show themselves.

    Attributes:
        address: HOST:PORT.
        ca_pem: Certificate of the authority that the server's is issued by; None for plain text.
        certificate: The client's own certificate and key, both PEM; None for none.
        token: The client's bearer token; empty for none.
        server_name: The name that the server's certificate has to have; empty for the host of the address.
    """

    address: str
    ca_pem: bytes | None = field(default=None, repr=False)
    certificate: tuple[bytes, bytes] | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    server_name: str = ""

    def check(self) -> None:
        """Returns when a connection gives nothing away that it must not.

        Raises:
            FailedPrecondition: A credential would travel in plain text to another host.
            InvalidArgument: The address is none.
        """
        if self.ca_pem is None and (self.token or self.certificate) and not is_loopback(self.address):
            raise FailedPrecondition(
                f"A credential is not sent to {self.address} in plain text.",
                hint="Give the colony's ca.pem with --ca, or sign in with `coral login --colony HOST:PORT --ca FILE`.",
            )
