"""What drains the kernel's rings, and how it shows that it does."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from coral.agent import pump
from coral.agent.pump import Pump
from coral.events.record import RECORD
from coral.kernel.engine import Drained
from coral.kernel.layout import CONTROL
from coral.telemetry.vitals import Trouble


class Rings:
    """Empty ones, whose wait can hang or fail as a defect would have it."""

    def __init__(self) -> None:
        self.hang = threading.Event()
        self.let_go = threading.Event()
        self.fail = False

    def wait(self, timeout_s: float) -> None:
        """Waits for a moment, or for ever."""
        if self.fail:
            raise SystemExit  # ends the thread, and it alone
        if self.hang.is_set():
            self.let_go.wait(30)
        self.let_go.wait(0.005)

    def drain(self) -> Drained:
        """Nothing."""
        return Drained(np.zeros(0, CONTROL), np.zeros(0, RECORD))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_pump_that_hangs_or_ended_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it runs and while it turns nothing is wrong; it is stuck when it hangs, and when its thread has ended."""
    monkeypatch.setattr(pump, "_STUCK_S", 0.3)
    rings = Rings()

    async def scenario() -> list[Trouble | None]:
        one = Pump(rings, lambda _drained, _offset_ns: None)  # type: ignore[arg-type]
        found = [one.trouble]
        running = asyncio.create_task(one.run())
        await asyncio.sleep(0.5)
        found.append(one.trouble)
        rings.hang.set()
        found.append(await _trouble(one))
        rings.hang.clear()
        rings.let_go.set()
        async with asyncio.timeout(5):
            while one.trouble is not None:  # noqa: ASYNC110  (what it looks at is another thread)
                await asyncio.sleep(0.01)
        rings.fail = True
        found.append(await _trouble(one))
        running.cancel()
        await asyncio.wait([running])
        return found

    before, turning, hanging, ended = asyncio.run(scenario())
    assert (before, turning) == (None, None)
    assert hanging == Trouble(reason="it has not turned for 0 s", stuck=True)
    assert ended == Trouble(reason="its thread has ended", stuck=True)


async def _trouble(one: Pump) -> Trouble:
    async with asyncio.timeout(5):
        while (found := one.trouble) is None:  # noqa: ASYNC110  (likewise)
            await asyncio.sleep(0.01)
    return found
