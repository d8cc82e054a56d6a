"""TLS of a server whose certificate is renewed while it runs: connections that are there stay, new ones see the new one."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import grpc

from coral.trust.authority import KeyPair


def server_credentials(current: Callable[[], KeyPair], *, clients_of: bytes | None = None) -> grpc.ServerCredentials:
    """Credentials for a port.

    Args:
        current: The certificate and key to show now; asked in threads of gRPC, at every handshake.
        clients_of: Certificate of the authority (PEM) by which every client has to have one; None for clients without, whose
            certificates are not even asked for.
    """
    shown = current()

    def configuration(pair: KeyPair) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)], clients_of)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        pair = current()
        if pair is shown:
            return None  # what is in use goes on
        shown = pair
        return configuration(pair)

    # None is what grpc documents for "unchanged"; its stubs leave that out.
    fetch = cast(Callable[[], grpc.ServerCertificateConfiguration], changed)
    return grpc.dynamic_ssl_server_credentials(configuration(shown), fetch, clients_of is not None)
