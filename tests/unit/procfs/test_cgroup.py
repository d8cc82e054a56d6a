from __future__ import annotations

import pytest

from coral.procfs.cgroup import container_of, telling_path, unit_of

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/system.slice/nginx.service\n", "/system.slice/nginx.service"),
        ("2:cpu:/\n1:name=systemd:/system.slice/a.service\n0::/\n", "/system.slice/a.service"),
        ("4:memory:/docker/x:y\n1:name=systemd:/\n0::/\n", "/docker/x:y"),
        ("0::/\n", "/"),
        ("", ""),
    ],
)
def test_the_hierarchy_that_says_most_counts(text: str, path: str) -> None:
    """The unified path, else systemd's, else any that is not the root."""
    assert telling_path(text) == path


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", "nginx"),
        ("/system.slice/system-postgresql.slice/postgresql@15-main.service", "postgresql@15-main"),
        ("/system.slice/foo.service/worker", "foo"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service", "shop"),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", ""),
        ("/user.slice/user-0.slice/session-3.scope", ""),
        (f"/system.slice/containerd.service/kubepods-besteffort-pod1:cri-containerd:{ID}", ""),
        ("/system.slice/containerd.service", "containerd"),
        (f"/system.slice/web.service/libpod-payload-{ID}", "web"),
        ("/", ""),
        ("", ""),
    ],
)
def test_the_systemd_unit(path: str, unit: str) -> None:
    """The deepest service names it, but neither a user's manager nor the runtime that a container hangs below."""
    assert unit_of(path) == unit


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"/docker/{ID}", "0123456789ab"),
        (f"/system.slice/docker-{ID}.scope", "0123456789ab"),
        (f"/kubepods.slice/kubepods-pod5f3a.slice/cri-containerd-{ID}.scope", "0123456789ab"),
        (f"/machine.slice/libpod-{ID}.scope/container", "0123456789ab"),
        (f"/system.slice/containerd.service/kubepods-besteffort-pod1:cri-containerd:{ID}", "0123456789ab"),
        (f"/docker/{OTHER}/docker/{ID}", "0123456789ab"),
        (f"/docker/{ID}00", ""),
        ("/system.slice/nginx.service", ""),
    ],
)
def test_the_container(path: str, container: str) -> None:
    """Sixty-four hex digits name a container; the innermost counts, shown as docker ps shows it."""
    assert container_of(path) == container
