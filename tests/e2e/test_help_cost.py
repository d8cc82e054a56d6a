"""Help costs what click costs: no page of it loads what its command would need to run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from coral.__main__ import COMMANDS, GROUPS

HEAVY = (
    "asyncio", "capstone", "coral.client", "coral.colony.daemon", "coral.events", "coral.wire", "dataclasses", "duckdb",
    "google", "grpc", "json", "lief", "numpy", "psutil", "pyarrow", "pydantic", "rapidfuzz", "rich",
    "structlog", "subprocess", "ulid", "yaml",
)  # fmt: skip

_PROBE = """
import json, sys
before = set(sys.modules)
sys.argv = ["coral", *json.loads(sys.argv[1]), "--help"]
from coral.__main__ import main
try:
    main()
except SystemExit as done:
    loaded = sorted(set(sys.modules) - before)
    print(json.dumps([done.code, loaded]), file=sys.stderr)
"""


@pytest.mark.parametrize("path", ["", *GROUPS, *COMMANDS])
def test_no_heavy_module_on_a_help_path(path: str) -> None:
    """The help page of every group and command comes without any of the heavy modules."""
    command = [sys.executable, "-c", _PROBE, json.dumps(path.split())]
    # The probe itself uses json; it is loaded before the command line is, so it does not count.
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    code, loaded = json.loads(done.stderr)
    assert code == 0
    assert done.stdout.startswith(f"Usage: coral {path}".rstrip())
    assert [name for name in loaded if name in HEAVY or name.partition(".")[0] in HEAVY] == []
