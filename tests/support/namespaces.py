"""What can be done with namespaces where these tests run."""

from __future__ import annotations

from pathlib import Path

IN_CHROOT = not any(line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines())
"""Whether these tests run in a chroot, whose root is no mount."""
UNSHARE = ("unshare", "--propagation", "unchanged") if IN_CHROOT else ("unshare",)
"""unshare(1). In a chroot it cannot make what it mounts private, and must be told not to try."""
