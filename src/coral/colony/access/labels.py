"""What policies know of a service besides its name: its labels, as the colony's settings give them."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from coral.trust.policy.question import Target

ENVIRONMENT_LABEL = "env"


class Labels:
    """Labels by service.

    Args:
        environment: Of services whose labels name none.
        by_glob: Glob over services to labels; of several that match, a later one wins.
    """

    def __init__(self, *, environment: str = "", by_glob: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._environment = environment
        self._by_glob = dict(by_glob or {})

    def target(self, service_name: str) -> Target:
        """A service as policies see it."""
        labels = {ENVIRONMENT_LABEL: self._environment} if self._environment else {}
        for pattern, given in self._by_glob.items():
            if fnmatchcase(service_name, pattern):
                labels.update(given)
        return Target(name=service_name, environment=labels.get(ENVIRONMENT_LABEL, ""), labels=labels)
