"""What happens to the colony's disk: it is full, read-only, slow, or refuses what is written."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

import grpc
from support import rpc

from faults.cases import Scene, fault
from faults.checker import Leaves
from faults.disks import Ext4Disk, SmallDisk
from faults.settings import Preloads, on_a_small_disk, on_an_ext4_disk, preloaded, with_a_floor_of_space

_REOPENS_S = 45.0
"""A database that failed is opened again after a pause, which grows to 30 s."""


@fault("full disk", setting=on_a_small_disk)
def full(scene: Scene) -> None:
    """Not a byte is left for seconds: nothing is attached, nothing is lost, and it goes on by itself once there is room."""
    disk = scene.stack.setting
    assert isinstance(disk, SmallDisk)
    scene.wait_for_stored(1000)
    disk.fill()
    try:
        _refuses_to_attach(scene)
        time.sleep(scene.random.uniform(1, 4))
    finally:
        disk.empty()
    scene.wait_for_stored(1000, timeout_s=_REOPENS_S)


@fault("little space", leaves=Leaves.LOSS, setting=with_a_floor_of_space)
def floor(scene: Scene) -> None:
    """Free space falls below what the colony keeps: events are dropped, each counted; sessions begin and end all the same."""
    disk = scene.stack.setting
    assert isinstance(disk, SmallDisk)
    scene.wait_for_stored(1000)
    disk.fill(leave_bytes=16 << 20)
    try:
        time.sleep(3)
        session_id = rpc.attach(scene.stack.colony, scene.programs[0].service, scene.programs[0].function).session_id
        document = scene.stack.cli.stop(session_id)
        scene.expect(document["status"] == "detached", f"a session meanwhile: {document['status']}: {document['reason']}")
    finally:
        disk.empty()
    scene.wait_for_stored(1000)
    dropped = sum(int(scene.session(one).ledger.queue_dropped) for one in scene.sessions.values())
    scene.expect(dropped > 0, "nothing was dropped, although there was too little space")


@fault("read-only disk", setting=on_an_ext4_disk, own_stack=True, restarts=True, soak=False)
def read_only(scene: Scene) -> None:
    """The file system goes read-only for good: the colony lives, attaches nothing, and goes on as it was after a repair."""
    disk = scene.stack.setting
    assert isinstance(disk, Ext4Disk)
    scene.wait_for_stored(1000)
    disk.fail()
    _refuses_to_attach(scene)
    assert scene.stack.colony_daemon is not None
    scene.expect(scene.stack.colony_daemon.process.poll() is None, "the colony did not survive it")
    scene.stack.colony_daemon.stop()
    disk.repair()
    scene.stack.start_colony()
    scene.wait_for_stored(1000, timeout_s=_REOPENS_S)


@fault("writes refused", setting=preloaded)
def refused(scene: Scene) -> None:
    """The disk refuses every write for seconds, with an error drawn at random, and then takes them again."""
    number = scene.random.choice((errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT))
    scene.notes.append(errno.errorcode[number])

    def refuses() -> None:
        _disk(scene)(error=number)
        _refuses_to_attach(scene)
        time.sleep(scene.random.uniform(1, 4))

    _meanwhile(scene, refuses)


@fault("writes refused past the deadline", setting=preloaded, seconds=8)
def refused_past_the_deadline(scene: Scene) -> None:
    """The deadline passes while nothing can be written: the end that the agents report is stored when it can be."""

    def refuses() -> None:
        for program in scene.programs:
            scene.rates.append(program.stop())
        _disk(scene)(error=errno.EROFS)
        time.sleep(16)

    _meanwhile(scene, refuses)


@fault("slow disk", setting=preloaded)
def slow(scene: Scene) -> None:
    """Each write takes 5 ms, and each sync most of a second."""

    def slow_down() -> None:
        _disk(scene)(sync_delay_s=0.7, write_delay_s=0.005)
        scene.wait_for_stored(8000)

    _meanwhile(scene, slow_down)


def _disk(scene: Scene) -> Callable[..., None]:
    preloads = scene.stack.setting
    assert isinstance(preloads, Preloads)
    return preloads.colony.set_disk


def _meanwhile(scene: Scene, happens: Callable[[], None]) -> None:
    scene.wait_for_stored(1000)
    try:
        happens()
    finally:
        _disk(scene)()
    scene.expect(scene.stack.setting.colony.met > 0, "no write met the fault")
    _readable(scene)
    if not all(program.stopped for program in scene.programs):
        scene.wait_for_stored(1000, timeout_s=_REOPENS_S)


def _readable(scene: Scene) -> None:
    """Waits until sessions can be looked at again: that too stands in the audit log first."""
    deadline = time.monotonic() + _REOPENS_S
    while True:
        try:
            for session_id in scene.sessions.values():
                scene.session(session_id)
            return
        except grpc.RpcError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _refuses_to_attach(scene: Scene) -> None:
    """What cannot be written down does not begin; whoever asks is told what to do."""
    deadline = time.monotonic() + 10
    while True:  # what still fits into a block that the disk has given already is written
        program = scene.programs[0]
        outcome = scene.stack.cli.run(
            "debug", "attach", program.service, "-f", program.function, "-d", "1s", "--no-wait", "-o", "json"
        )
        if outcome.exit_code != 0:
            break
        if time.monotonic() > deadline:
            scene.faults.append("sessions are still begun that nobody can write down")
            return
    error = outcome.error()
    scene.expect(outcome.exit_code == 5, f"an attach that cannot be written down exits {outcome.exit_code}: {error}")
    scene.expect(bool(error["hint"]), f"it does not say what to do: {error}")
    scene.notes.append(f"{error['message']} {error['hint']}")
