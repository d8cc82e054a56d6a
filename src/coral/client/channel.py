"""Channels: how a client connects, the same towards colony and agents."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence
from typing import Any

import grpc

from coral.client.endpoint import Endpoint
from coral.model.text import printable
from coral.wire.address import MAX_MESSAGE_BYTES, split_address

OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),  # what may be repeated, and until when, is decided by who calls
    ("grpc.enable_http_proxy", 0),  # else https_proxy would capture even calls to loopback
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # what one attempt to connect may take, its name notwithstanding
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel tries at once, whatever the backoff of an older one
)


def connect(endpoint: Endpoint | str) -> grpc.aio.Channel:
    """A channel to a server; it connects with its first call, and again whenever the link broke.

    Args:
        endpoint: The server; HOST:PORT alone stands for one that speaks plain text.

    Raises:
        InvalidArgument: The address is not of that form.
        FailedPrecondition: A credential would travel in plain text.
    """
    if isinstance(endpoint, str):
        endpoint = Endpoint(address=endpoint)
    split_address(endpoint.address)
    endpoint.check()
    options = list(OPTIONS)
    if endpoint.ca_pem is None:
        return grpc.aio.insecure_channel(endpoint.address, options=options)
    certificate, key = endpoint.certificate or (None, None)
    if endpoint.server_name:
        options.append(("grpc.ssl_target_name_override", endpoint.server_name))
    credentials = grpc.ssl_channel_credentials(endpoint.ca_pem, key, certificate)
    return grpc.aio.secure_channel(endpoint.address, credentials, options=options)


def actor() -> str:
    """Who runs this process, as ``user@host``, in the ASCII that metadata can carry."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this uid: OSError since Python 3.13
        user = f"uid-{os.getuid()}"
    sudo = os.environ.get("SUDO_USER", "")
    name = f"{sudo}(sudo)" if sudo and user == "root" else user
    return printable(f"{name}@{socket.gethostname()}").encode("ascii", "backslashreplace").decode()
