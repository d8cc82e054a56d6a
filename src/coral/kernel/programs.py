"""The loaded BPF object: its programs and maps, and the links that follow processes."""

from __future__ import annotations

import errno
import os
from importlib import resources

from coral.kernel.libbpf import check, library
from coral.kernel.link import UPROBE_MULTI
from coral.model.errors import FailedPrecondition

_KPROBE = 2  # BPF_PROG_TYPE_KPROBE
_SLEEPABLE = 1 << 4  # BPF_F_SLEEPABLE
_SITE_PROGRAMS = ("on_entry", "on_exit", "on_guard")
_PROCESS_PROGRAMS = ("on_fork", "on_exec", "on_process_exit")


class Programs:
    """The object, loaded once per agent.

    Args:
        sizes: Number of entries, or of bytes for a ring, of maps that are not to have their default size.

    Raises:
        FailedPrecondition: This host cannot run it; the message says why and what to do.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        data = resources.files("coral.kernel").joinpath("probe.bpf.o").read_bytes()
        bpf = library()
        self._links: list[int] = []
        self._object: int | None = check(bpf.bpf_object__open_mem(data, len(data), None), "open the BPF object")
        try:
            self._load(sizes)
        except OSError as error:
            self.close()
            raise _explained(error) from error

    def program_fd(self, name: str) -> int:
        """Descriptor of a program."""
        bpf = library()
        return check(bpf.bpf_program__fd(bpf.bpf_object__find_program_by_name(self._object, name.encode())), name)

    def map_fd(self, name: str) -> int:
        """Descriptor of a map."""
        bpf = library()
        return check(bpf.bpf_map__fd(bpf.bpf_object__find_map_by_name(self._object, name.encode())), name)

    def close(self) -> None:
        """Stops following processes and unloads; links made elsewhere keep their programs until they are closed."""
        bpf = library()
        for made in self._links:
            bpf.bpf_link__destroy(made)
        self._links = []
        if self._object is not None:
            bpf.bpf_object__close(self._object)
            self._object = None

    def _load(self, sizes: dict[str, int]) -> None:
        bpf = library()
        for name, entries in sizes.items():
            found = bpf.bpf_object__find_map_by_name(self._object, name.encode())
            check(bpf.bpf_map__set_max_entries(found, entries), f"size map {name}")
        for name in _SITE_PROGRAMS:
            program = bpf.bpf_object__find_program_by_name(self._object, name.encode())
            check(bpf.bpf_program__set_type(program, _KPROBE), name)
            check(bpf.bpf_program__set_expected_attach_type(program, UPROBE_MULTI), name)
            check(bpf.bpf_program__set_flags(program, _SLEEPABLE), name)
        check(bpf.bpf_object__load(self._object), "load the BPF object")
        for name in _PROCESS_PROGRAMS:
            program = bpf.bpf_object__find_program_by_name(self._object, name.encode())
            self._links.append(check(bpf.bpf_program__attach(program), f"attach {name}"))


def _explained(error: OSError) -> FailedPrecondition:
    if error.errno in (errno.EPERM, errno.EACCES):
        return FailedPrecondition(
            "The kernel does not let this process load BPF programs.",
            hint="Run as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.",
        )
    release = os.uname().release
    return FailedPrecondition(
        f"This kernel ({release}) cannot run Coral's programs: {error.strerror}.",
        hint="Linux 6.6 or later with BTF (/sys/kernel/btf/vmlinux) is needed.",
    )
