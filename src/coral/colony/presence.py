"""Says in the log which agents came and went: each by name while they are few, their number when they are many."""

from __future__ import annotations

from collections.abc import Set

import structlog

_BY_NAME = 20
"""A network that breaks takes thousands with it, and their names say no more than their number."""

_log = structlog.get_logger(__name__)


class Presence:
    """Which agents were online when it was last told."""

    def __init__(self) -> None:
        self._online: Set[str] = frozenset()

    def note(self, online: Set[str], *, known: int) -> None:
        """Says what changed since the last time.

        Args:
            online: The ids of the agents that are heard of now.
            known: How many agents there are in all.
        """
        came, went = online - self._online, self._online - online
        self._online = online
        if len(came) + len(went) > _BY_NAME:
            _log.warning("many agents came or went", came=len(came), went=len(went), online=len(online), known=known)
            return
        for agent_id in sorted(came):
            _log.info("agent online", agent_id=agent_id)
        for agent_id in sorted(went):
            _log.warning("agent offline", agent_id=agent_id)
