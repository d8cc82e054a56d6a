"""What the sessions of this life of the colony counted, all together: kept when a session itself has left memory."""

from __future__ import annotations

from collections import Counter

from coral.colony.book import LiveSession, SessionBook
from coral.model.ledger import Ledger


class Tally:
    """A sum over sessions.

    Args:
        book: The sessions that run.

    Attributes:
        ended: How many have ended, by status and reason code.
    """

    def __init__(self, book: SessionBook) -> None:
        self._book = book
        self._left = Ledger()
        self.ended: Counter[tuple[str, str]] = Counter()
        book.on_left(self._note)

    def ledger(self) -> Ledger:
        """The counters of all sessions, the ended ones included."""
        total = self._left
        for live in self._book:
            total += live.view().ledger
        return total

    def _note(self, live: LiveSession) -> None:
        session = live.view()
        if session.status.ended:  # else it was refused
            self._left += session.ledger
            self.ended[session.status.value, session.reason_code.value] += 1
