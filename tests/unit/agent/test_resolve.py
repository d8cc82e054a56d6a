"""Opening the program of a process: what cannot be opened is an error of that process, and no other."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from coral.agent.resolve import FunctionName, Resolver
from coral.elf.parser import Parser
from coral.model.errors import FailedPrecondition
from coral.procfs.process import read_process


def test_a_program_that_keeps_root_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A FUSE file system of somebody's own refuses everybody else, root too: such a process fails, with the reason."""
    process = read_process(os.getpid())
    opened = os.open

    def refuse(path: str, flags: int, *more: int) -> int:
        if str(path).endswith("/exe"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, flags, *more)

    monkeypatch.setattr("coral.agent.resolve.os.open", refuse)
    with pytest.raises(FailedPrecondition, match=r"cannot be opened: Permission denied\. The file system that it lies on"):
        asyncio.run(Resolver(Parser()).locate(process, FunctionName.parse("work")))
