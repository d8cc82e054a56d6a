"""Where Coral keeps its files: root's daemons under /var and /etc, a user's under the XDG base directories."""

from __future__ import annotations

import os
from pathlib import Path

_SYSTEM_STATE = Path("/var/lib/coral")
_SYSTEM_CONFIG = Path("/etc/coral")


def state_dir() -> Path:
    """Where a daemon keeps its state unless told otherwise: ``/var/lib/coral`` for root, else ``$XDG_STATE_HOME/coral``."""
    if os.geteuid() == 0:
        return _SYSTEM_STATE
    return _xdg("XDG_STATE_HOME", ".local/state") / "coral"


def config_files(daemon: str) -> tuple[Path, ...]:
    """The configuration files of a daemon that count when none is named, the more telling one last.

    Args:
        daemon: ``colony`` or ``agent``.

    Returns:
        Paths that need not exist: the system's file, then the user's, whose keys stand in a section per daemon.
    """
    return _SYSTEM_CONFIG / f"{daemon}.yaml", _xdg("XDG_CONFIG_HOME", ".config") / "coral" / "config.yaml"


def contexts_file() -> Path:
    """Which colonies a person works with, and the tokens for them."""
    return _xdg("XDG_CONFIG_HOME", ".config") / "coral" / "contexts.yaml"


def _xdg(variable: str, default: str) -> Path:
    # The XDG base directory specification: a relative path in one of its variables is to be ignored.
    given = Path(os.environ.get(variable, ""))
    return given if given.is_absolute() else Path.home() / default
