"""What a daemon tells systemd, or whatever else started it with a socket to tell it on: that it serves, and that it lives.

A datagram of lines ``NAME=value`` to the socket of ``NOTIFY_SOCKET`` (sd_notify(3)). Who has ``WATCHDOG_USEC`` in its
environment is ended and started anew when it has not sent ``WATCHDOG=1`` for so many microseconds; half of that is the pace
that the manual asks for (sd_watchdog_enabled(3)).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Self

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """Whoever started this process, as far as it wants to be told.

    Attributes:
        watchdog_s: After how many seconds of silence it ends this process; 0 when it does not.
    """

    def __init__(self, socket_path: str = "", *, watchdog_s: float = 0.0) -> None:
        """Args: ``socket_path`` is where it listens, empty for nobody; with @ first it is abstract (unix(7))."""
        self._address = f"\0{socket_path[1:]}" if socket_path.startswith("@") else socket_path
        self.watchdog_s = watchdog_s if socket_path else 0.0

    @classmethod
    def of(cls, environment: MutableMapping[str, str] = os.environ) -> Self:
        """The one that the environment names. The variables are removed: what this process starts is none of its business."""
        path, usec, pid = (environment.pop(name, "") for name in _VARIABLES)
        meant = not pid or pid == str(os.getpid())
        return cls(path, watchdog_s=int(usec) / 1e6 if usec.isdecimal() and meant else 0.0)

    def ready(self) -> None:
        """Says that it serves."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """Says that it ends."""
        self._tell("STOPPING=1")

    def alive(self, status: str) -> None:
        """Says that it works, and in a sentence how it is, which ``systemctl status`` shows."""
        self._tell("WATCHDOG=1", f"STATUS={status}")

    def _tell(self, *lines: str) -> None:
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, suppress(OSError):
                out.setblocking(False)  # a manager that does not read must not stop what it manages
                out.sendto("\n".join(lines).encode(), self._address)
