"""What an agent refuses before it touches the host."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coral.agent.daemon import run
from coral.config.settings import AgentSettings
from coral.model.errors import FailedPrecondition, InvalidArgument


def test_addresses_are_checked_first(tmp_path: Path) -> None:
    """A colony that is no address and an open port are told at once, rather than by an agent that says it is ready."""
    with pytest.raises(InvalidArgument, match="'nonsense' is not an address"):
        asyncio.run(run(AgentSettings(colony="nonsense", state_dir=tmp_path), insecure=True, ready_fd=None))
    with pytest.raises(FailedPrecondition, match="reached from other hosts"):
        asyncio.run(run(AgentSettings(listen="0.0.0.0:0", state_dir=tmp_path), insecure=True, ready_fd=None))
    assert list(tmp_path.iterdir()) == []
