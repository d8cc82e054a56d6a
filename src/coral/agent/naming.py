"""What the code that a probe would be in is called: told to the colony, whose policies go by it, and held to its answer.

An agent does not know the colony's policies, and a colony does not know what a name means on a host. So the agent says what
it found, the colony decides about that, and the agent attaches what was decided about, and nothing else: also in processes
that start later and run another build.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import PurePath

from coral.agent.policy import LocalPolicy
from coral.agent.processes import Processes
from coral.agent.resolve import FunctionName, Located, Resolver
from coral.model.errors import CoralError, PermissionDenied
from coral.model.resolved import ResolvedFunction
from coral.model.text import printable

UNAUTHORISED = "unauthorised"
"""Among the details of a refusal: the colony was not asked about this function yet."""


class NotAuthorised(PermissionDenied):
    """The colony has not decided about what its name came to in this process."""


def resolved(located: Located) -> ResolvedFunction:
    """What was found, in the words that rules go by."""
    return ResolvedFunction(
        name=located.plan.name,
        file=printable(PurePath(located.path).name),
        called=located.plan.called,
        complete=located.plan.all_called,
    )


def check_authorised(located: Located, marks: frozenset[bytes] | None) -> None:
    """Passes if a function is among those that may be probed.

    Args:
        located: The function.
        marks: Of those that may be; None for any.

    Raises:
        NotAuthorised: It is not.
    """
    if marks is None:
        return
    found = resolved(located)
    if found.mark not in marks:
        raise NotAuthorised(
            f"The colony's policies were not asked about {found.name} of {found.file}.",
            hint="It is asked now; try again if this stays.",
            details={UNAUTHORISED: found.name},
        )


class Naming:
    """Finds what a name stands for in the processes of a service, as an attach does, and attaches nothing.

    Args:
        resolver: Finds the function in a process.
        processes: Those of the host.
        policy: What may not be looked into here.
    """

    def __init__(self, resolver: Resolver, processes: Processes, policy: LocalPolicy) -> None:
        self._resolver = resolver
        self._processes = processes
        self._policy = policy

    async def of(self, service: str, function_name: str) -> list[ResolvedFunction]:
        """What the name stands for, each once. Processes that do not have it, or are denied, are passed over.

        Args:
            service: Whose processes.
            function_name: ``[LIBRARY!]NAME`` or ``FILE:NAME``.
        """
        function = FunctionName.parse(function_name)
        found: dict[bytes, ResolvedFunction] = {}
        for entry in await self._processes.instances(service):
            try:
                await asyncio.to_thread(self._policy.check_process, entry.process, service)
                located = await self._resolver.locate(entry.process, function)
            except CoralError:
                continue  # an attach says why
            os.close(located.fd)
            one = resolved(located)
            found[one.mark] = one
        return list(found.values())
