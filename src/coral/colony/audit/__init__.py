"""The audit log: who did what. Written and synced before it is done; no audit, no action."""

from coral.colony.audit.entry import Entry
from coral.colony.audit.log import Audit, Noted

__all__ = ["Audit", "Entry", "Noted"]
