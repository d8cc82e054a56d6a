"""The one error that stands for those of all agents that were asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from coral.colony.registry import Registry, did_you_mean
from coral.model.errors import (
    CoralError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)

_NAMED = 8


def named(agent_ids: Sequence[str]) -> str:
    """The first few of many hosts, and how many more there are."""
    more = len(agent_ids) - _NAMED
    return ", ".join(agent_ids[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def refusal(registry: Registry, service_name: str, failures: Mapping[str, CoralError]) -> CoralError:
    """What to answer when every agent failed.

    Args:
        registry: The agents.
        service_name: What they were asked about.
        failures: What each of them said, by agent id; at least one.
    """
    errors = list(failures.values())
    if all(isinstance(error, NotFound) for error in errors):
        offline = registry.offline_hosts_of(service_name)
        if offline and not registry.services(service_name):
            return Unavailable(
                f"Service {service_name!r} was last seen on {named(offline)}, which is offline.",
                hint="Start the agent there again with `coral agent start`.",
            )
        return _not_found(registry, service_name, errors)
    if len({error.code for error in errors}) == 1:
        return _joined(type(errors[0]), failures)
    for kind in (InvalidArgument, PermissionDenied):
        if any(isinstance(error, kind) for error in errors):
            return _joined(kind, failures)
    return _joined(FailedPrecondition, failures)


def _not_found(registry: Registry, service_name: str, errors: Sequence[CoralError]) -> NotFound:
    hints = list(dict.fromkeys(error.hint for error in errors if error.hint))
    services = registry.service_names()
    if service_name not in services and not hints:
        hints.append(did_you_mean(service_name, services))
    messages = list(dict.fromkeys(error.message for error in errors))
    details = {key: value for error in errors for key, value in error.details.items()}
    return NotFound(" ".join(messages[:3]), hint=" ".join(hints), details=details)


def _joined(cls: type[CoralError], failures: Mapping[str, CoralError]) -> CoralError:
    """One error with what each agent said; just that when they all say the same."""
    errors = list(failures.values())
    details = {key: value for error in errors for key, value in error.details.items()}
    hints = " ".join(dict.fromkeys(error.hint for error in errors if error.hint))
    messages: Iterable[str] = dict.fromkeys(error.message for error in errors)
    if len(failures) > 1 and len({error.message for error in errors}) > 1:
        messages = [f"{agent_id}: {error.message}" for agent_id, error in failures.items()]
    return (Internal if cls is CoralError else cls)(" ".join(messages), hint=hints, details=details)
