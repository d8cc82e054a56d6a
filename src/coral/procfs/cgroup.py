"""What the path of a control group tells: the systemd unit and the container that a process is in."""

from __future__ import annotations

import re

_CONTAINER = re.compile(r"(?:^|[^0-9a-f])([0-9a-f]{64})(?![0-9a-f])")
"""Docker, containerd, CRI-O and podman name a container by 64 hex digits: ``/docker/ID``, ``docker-ID.scope``,
``kubepods-...slice/cri-containerd-ID.scope``, ``libpod-ID.scope``."""
_CONTAINER_SHOWN_DIGITS = 12
"""As ``docker ps`` does."""
_RUNTIMES = frozenset({"containerd", "crio", "docker", "k3s", "k3s-agent", "kubelet", "rke2-agent", "rke2-server"})
"""Units that run other people's containers: their name says nothing about what is in one below them."""


def telling_path(text: str) -> str:
    """Of the lines of /proc/PID/cgroup (cgroups(7)) the path that says most.

    That is the unified hierarchy's, unless the host is of the hybrid kind and keeps its processes in the old ones: then
    systemd's own, or else the first that is not the root.
    """
    paths: dict[str, str] = {}
    for line in text.splitlines():
        hierarchy, controllers, path = (*line.split(":", 2), "", "")[:3]
        paths["unified" if hierarchy == "0" else controllers] = path
    ordered = [paths.get("unified", ""), paths.get("name=systemd", ""), *paths.values()]
    return next((path for path in ordered if path not in ("", "/")), "/" if paths else "")


def unit_of(path: str) -> str:
    """The systemd unit without its ``.service``, or ``""``.

    The deepest service counts: of a user's own services the service, not the user's manager. ``foo@1.service`` is ``foo@1``.
    """
    unit, index = "", -1
    for position, component in enumerate(path.split("/")):
        if component.endswith(".service") and not component.startswith("user@"):
            unit, index = component.removesuffix(".service"), position
    if unit in _RUNTIMES and _CONTAINER.search("/".join(path.split("/")[index + 1 :])):
        return ""
    return unit


def container_of(path: str) -> str:
    """The first 12 digits of the container's id, or ``""``. The innermost one counts when they are nested."""
    found = _CONTAINER.findall(path)
    return str(found[-1])[:_CONTAINER_SHOWN_DIGITS] if found else ""
