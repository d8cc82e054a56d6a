"""What the guard refused, in the audit log: before the caller learns of it."""

from __future__ import annotations

from coral.colony.access.actions import Resource
from coral.colony.audit import Audit
from coral.model.errors import CoralError
from coral.model.principal import Principal


class AuditedRefusals:
    """Writes a row for each call that was not let through."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def denied(self, principal: Principal, action: str, resource: Resource, error: CoralError) -> None:
        """Writes the row.

        Raises:
            Unavailable: It cannot be written.
        """
        entry = self._audit.entry(
            principal,
            action,
            service_name=resource.service_name,
            function_name=resource.function_name,
            session_id=resource.session_id,
            agent_id=resource.agent_id,
            reason=resource.reason,
        )
        await self._audit.denied(entry, error)
