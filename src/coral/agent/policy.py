"""What this host forbids, whatever the colony says: which processes and functions are never probed or looked into.

The colony's policies say who may do what. This is the other side of it: an agent is root on its host, and does not take the
colony's word for what may be done there. The rules come from the agent's own settings, which nobody can change over the wire.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from coral.config.settings import AgentSettings, Denial
from coral.model.errors import PermissionDenied
from coral.model.probe import split_function
from coral.model.site import FunctionPlan
from coral.model.text import printable
from coral.procfs.cgroup import unit_of
from coral.procfs.process import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyRule:
    """One rule of the policy: all its patterns that are not empty must match.

    Attributes:
        denial: The patterns, and the reason to give.
        name: As a refusal names it: the setting, and its position there.
        place: Where it can be changed.
    """

    denial: Denial
    name: str
    place: str

    def matches(self, process: Process, service: str, functions: Sequence[str], *, any_function: bool = False) -> bool:
        """Whether it denies this; blocking where it names a user.

        Args:
            process: Which.
            service: The name of its service.
            functions: The names of one function; none when no function is asked about.
            any_function: Whether to take the function for one that it names.
        """
        denial, path = self.denial, process.executable
        return (
            (not denial.service or fnmatchcase(service, denial.service))
            and (not denial.function or any_function or any(fnmatchcase(name, denial.function) for name in functions))
            and (not denial.executable or fnmatchcase(path if "/" in denial.executable else _base(path), denial.executable))
            and (not denial.unit or fnmatchcase(unit_of(process.cgroup), denial.unit.removesuffix(".service")))
            and (not denial.user or _uid_of(denial.user) == process.uid)
        )


class LocalPolicy:
    """The rules of one agent.

    Args:
        rules: What is denied.
        allow_values: Whether arguments and return values may leave the host.
        values_place: Where that can be changed.
    """

    def __init__(self, rules: Iterable[DenyRule] = (), *, allow_values: bool = False, values_place: str = "") -> None:
        self._rules = tuple(rules)
        self.allow_values = allow_values
        self.values_place = values_place

    @classmethod
    def of(cls, settings: AgentSettings) -> LocalPolicy:
        """The policy that the settings of an agent make."""
        return cls(
            (
                DenyRule(denial=denial, name=f"agent.{key}[{position}]", place=settings.place_of(key))
                for key, denials in (("deny", settings.deny), ("deny_by_default", settings.deny_by_default))
                for position, denial in enumerate(denials)
            ),
            allow_values=settings.allow_values,
            values_place=settings.place_of("allow_values"),
        )

    def check_process(self, process: Process, service: str, functions: Sequence[str] = ()) -> None:
        """Passes unless a rule denies a process, or a function in it; blocking.

        Args:
            process: Which.
            service: The name of its service.
            functions: The names of one function; none when no function is asked about.

        Raises:
            PermissionDenied: A rule does; names it, and where it can be changed.
        """
        for rule in self._rules:
            if rule.matches(process, service, functions):
                raise _denied(rule, process, functions)

    def check_function(self, process: Process, service: str, text: str, plan: FunctionPlan) -> None:
        """Passes unless a rule denies a function that was found in a process; blocking.

        Args:
            process: Which.
            service: The name of its service.
            text: As the function was asked for.
            plan: As it was found.

        Raises:
            PermissionDenied: A rule does, or might: the function has too many names to be known by all of them.
        """
        names = names_of(text, plan.name, *plan.names)
        self.check_process(process, service, names)
        if plan.all_called:
            return
        for rule in self._rules:
            if rule.denial.function and rule.matches(process, service, (), any_function=True):
                raise _denied(rule, process, names)

    def denies(self, process: Process, service: str) -> bool:
        """Whether a process as a whole is denied; blocking."""
        try:
            self.check_process(process, service)
        except PermissionDenied:
            return True
        return False


def names_of(text: str, *found: str) -> tuple[str, ...]:
    """Everything by which a rule may know a function: as it was asked for, and as it was found.

    Args:
        text: ``[LIBRARY!]NAME``, as it was asked for.
        found: What symbols at its address are called; each counts also without its parameters.
    """
    names = {text, split_function(text)[1], *found}
    return tuple(sorted(names | {name.partition("(")[0] for name in names if name.partition("(")[0]}))


def _denied(rule: DenyRule, process: Process, functions: Sequence[str]) -> PermissionDenied:
    what = f"{printable(functions[0])} of " if rule.denial.function else ""
    return PermissionDenied(
        f"The policy of this host denies {what}process {process.id.pid} ({printable(process.executable)}): "
        f"{rule.denial.reason} (rule {rule.name}, {rule.place}).",
        hint=f"Who administers the host can change {rule.name.partition('[')[0]} there.",
        details={"policy": rule.name, "place": rule.place},
    )


def _uid_of(user: str) -> int | None:
    """The number of a user of this host; None while there is none of that name."""
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _base(path: str) -> str:
    return path.rpartition("/")[2]
