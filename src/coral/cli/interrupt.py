"""Ctrl-C and SIGTERM while a session is watched: the first asks for an orderly end, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from coral.cli.entry import INTERRUPTED, OK, TERMINATED

_SHOW_CURSOR = "\x1b[?25h"


class Interrupt:
    """Set when the user wants to stop. Create it in a running loop, in the main thread.

    Attributes:
        asked: Set by the first signal.
        exit_code: What an orderly end after it exits with.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.exit_code = OK
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._signal, OK, INTERRUPTED)
        loop.add_signal_handler(signal.SIGTERM, self._signal, TERMINATED, TERMINATED)

    def _signal(self, orderly: int, at_once: int) -> None:
        if self.asked.is_set():
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), _SHOW_CURSOR.encode())  # the live picture has hidden it
            os._exit(at_once)
        self.exit_code = orderly
        self.asked.set()
