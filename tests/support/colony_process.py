"""A colony as a process of its own, without authentication."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path


async def colony_process(
    state_dir: Path, listen: str = "127.0.0.1:0", *, log: int = asyncio.subprocess.DEVNULL
) -> tuple[asyncio.subprocess.Process, str]:
    """Starts one and waits until it is ready.

    Args:
        state_dir: Where it keeps its state.
        listen: HOST:PORT; port 0 takes a free one.
        log: The descriptor that takes its log.

    Returns:
        The process, and HOST:PORT where it serves.
    """
    reader, writer = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coral", "colony", "start", "--insecure", "--listen", listen, "--state-dir", str(state_dir),
        "--ready-fd", str(writer), pass_fds=[writer], stderr=log,
    )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader) as pipe:
        facts = json.loads(await asyncio.to_thread(pipe.readline))
    assert facts["pid"] == process.pid
    return process, facts["colony"]
