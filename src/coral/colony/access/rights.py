"""What a colony needs to go by policies, put together: policies, labels, approvals, and the authoriser over them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from coral.colony.access.approvals import Approvals
from coral.colony.access.in_force import PoliciesInForce
from coral.colony.access.labels import Labels
from coral.colony.access.policies import CedarAuthoriser
from coral.colony.audit import Audit
from coral.colony.store.database import Database
from coral.config.settings import ColonySettings


class Rights:
    """Who may do what in one colony.

    Attributes:
        in_force: The policies.
        approvals: Requests for approval.
        authoriser: What decides about users, and who sees captured values.
    """

    def __init__(self, settings: ColonySettings, *, control: Database, audit: Audit) -> None:
        """Reads nothing yet.

        Args:
            settings: Where the policies are, and what labels services have.
            control: The file that keeps requests for approval.
            audit: Where they are written down.
        """
        self.in_force = PoliciesInForce(Path(settings.policy_dir) if settings.policy_dir else None)
        self.approvals = Approvals(control, audit, good_s=settings.approval_s)
        self.authoriser = CedarAuthoriser(
            in_force=self.in_force,
            labels=Labels(environment=settings.environment, by_glob=settings.labels),
            approvals=self.approvals,
        )

    async def open(self) -> None:
        """Puts the policies into force and reads the requests; the database is open.

        Raises:
            FailedPrecondition: The policies cannot be read, or are broken.
        """
        await self.in_force.open()
        await self.approvals.load()

    async def run(self, report: Callable[[bool], Awaitable[None]]) -> None:
        """Looks after the policies, until cancelled; ``report`` is told whether those in the folder are in force."""
        await self.in_force.run(report)
