"""``make demo`` shows what it promises."""

import re
import subprocess

import pytest
from support.build import ROOT

pytestmark = pytest.mark.kernel


def test_demo_finds_the_slow_calls_of_both_services() -> None:
    """It ends by itself, and for each service shows a small p50, the slow calls of 40 ms, and a balanced ledger."""
    done = subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for service, function in (("checkout", "main.ProcessPayment"), ("pricing", "price_order")):
        block = done.stdout.partition(f"\n{service}  {function}   expired")[2].partition("\n\n")[0]
        p50, unit = re.findall(r"p50 ([\d.]+) (\S+)", block)[0]
        assert unit == "µs" or float(p50) < 3, block
        slow = re.findall(r"^  (?:slowest)? +([\d.]+) ms +\d\d:\d\d:\d\d", block, re.MULTILINE)
        assert len(slow) == 5, block
        assert all(40 <= float(duration) < 100 for duration in slow), block
        assert block.endswith("nothing lost; balanced"), block
