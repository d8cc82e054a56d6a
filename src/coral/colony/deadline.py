"""When a session is over, on the clock that nobody sets.

What users see are wall-clock times, computed once. What the colony waits by is CLOCK_BOOTTIME, as its agents do: else a wall
clock that is set an hour forward would end every session at once, and one that is set back keep them for an hour more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from coral.model.session import Session


def boot_ns() -> int:
    """Now, on CLOCK_BOOTTIME, which goes on while a host is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """Of one session, in one life of the colony.

    Attributes:
        began_boot_ns: When the session was accepted.
        at_boot_ns: When it is over.
    """

    began_boot_ns: int
    at_boot_ns: int

    @classmethod
    def of(cls, session: Session) -> Self:
        """The deadline of a session that is accepted now, or was in an earlier life of the colony.

        How long ago that was only the wall clock knows. If it was set meanwhile, that is wrong by at most the duration: no
        session is taken to be from the future, and none to be over for longer than this colony runs.
        """
        duration_ns = session.expires_at_ns - session.started_at_ns
        elapsed_ns = min(max(0, time.time_ns() - session.started_at_ns), duration_ns)
        began_boot_ns = boot_ns() - elapsed_ns
        return cls(began_boot_ns=began_boot_ns, at_boot_ns=began_boot_ns + duration_ns)

    @property
    def remaining_s(self) -> float:
        """Seconds until it; negative once it has passed."""
        return (self.at_boot_ns - boot_ns()) / 1e9

    @property
    def elapsed_ns(self) -> int:
        """For how long the session has run."""
        return boot_ns() - self.began_boot_ns
