"""The policies in force: the default ones and those of a folder, read again when it changes. Broken ones change nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from coral.model.errors import CoralError, FailedPrecondition
from coral.trust.policy.folder import Signature, read_folder, signature_of
from coral.trust.policy.policies import BrokenPolicies, Policies, default_source, load

LOOK_EVERY_S = 1.0

_log = structlog.get_logger(__name__)


class PoliciesInForce:
    """What policies a colony goes by.

    Attributes:
        policies: Those in force.
        since_ns: When they came into force, wall clock.
        faults: Why what is in the folder now is not; empty if it is.
    """

    def __init__(self, folder: Path | None) -> None:
        """Reads nothing yet; until ``open`` the default policies are in force."""
        self.folder = folder
        self.policies = load([default_source()])
        self.since_ns = time.time_ns()
        self.faults: tuple[str, ...] = ()
        self._seen: Signature | None = None

    async def open(self) -> None:
        """Puts the folder's policies into force.

        Raises:
            FailedPrecondition: They cannot be read, or are broken: without what they forbid nobody is let in.
        """
        if self.folder is None:
            return
        try:
            self._seen, self.policies = await asyncio.to_thread(_read, self.folder)
        except BrokenPolicies as error:
            raise FailedPrecondition(
                f"The policies in {self.folder} are broken: {error.message}", hint=error.hint, details=error.details
            ) from None
        self.since_ns = time.time_ns()

    async def run(self, report: Callable[[bool], Awaitable[None]]) -> None:
        """Looks at the folder every second, until cancelled.

        Args:
            report: Told at first, and from then on when it changes, whether what is in the folder is in force.
        """
        healthy = not self.faults
        await report(healthy)
        while self.folder is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()
            if healthy is bool(self.faults):
                healthy = not self.faults
                await report(healthy)

    async def look(self) -> None:
        """Puts what was written since into force, if it is in order; says once what is not."""
        if self.folder is None:
            return
        try:
            signature = await asyncio.to_thread(signature_of, self.folder)
            if signature == self._seen:
                return
            self._seen = signature
            self._seen, policies = await asyncio.to_thread(_read, self.folder)
        except CoralError as error:
            faults = tuple(map(str, error.faults)) if isinstance(error, BrokenPolicies) else (error.message,)
            if faults != self.faults:
                _log.error("policies not in force: the ones before them stay", folder=str(self.folder), faults=faults[:10])
            self.faults = faults
            return
        self.policies, self.since_ns, self.faults = policies, time.time_ns(), ()
        _log.info("policies in force", folder=str(self.folder), policies=len(policies.all))


def _read(folder: Path) -> tuple[Signature, Policies]:
    """What is in a folder, with its signature from before it was read: what changes meanwhile is read again."""
    signature = signature_of(folder)
    return signature, load([default_source(), *read_folder(folder)])
