"""What Coral and bpftrace are compared on: a program that calls a function when told to, and the two ways of probing it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import lief
from support.build import go_package
from support.text import changed_text

from bench.stack import BUILD, ROOT
from coral.elf.file import ElfFile
from coral.elf.plan import plan
from coral.elf.program import Program
from coral.kernel.engine import Engine
from coral.model.probe import Mode, ProbeConfig, ProbeFilter
from coral.model.site import FunctionPlan

PROGRAMS = ROOT / "bench" / "programs"
_PAUSE_S = 0.005
_WAIT_S = 60.0
_SYMBOL_BYTES, _SIZE_AT = 24, 16
"""Of Elf64_Sym, and where its st_size is (System V ABI, symbol table)."""


def c_program(name: str, compiler: str, *flags: str) -> Path:
    """A program of bench/programs, compiled in one of several ways."""
    output = BUILD / f"{name}-{compiler}{''.join(flags)}".replace("=", "-").replace("+", "x")  # as bpftrace can read it
    BUILD.mkdir(parents=True, exist_ok=True)
    language = ["-x", "c++"] if compiler == "g++" else []
    subprocess.run([compiler, "-O2", "-pthread", *flags, *language, "-o", output, PROGRAMS / f"{name}.c"], check=True)
    return output


def go_program() -> Path:
    """The same in Go."""
    return go_package(PROGRAMS / "go", "calls")


def plan_of(path: Path, function: str) -> FunctionPlan:
    """Where Coral would probe it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return plan(Program(ElfFile(fd, str(path))), function)
    finally:
        os.close(fd)


def image_of(path: Path) -> lief.ELF.Binary:
    """What is in an executable."""
    image = lief.ELF.parse(str(path))
    if image is None:
        sys.exit(f"{path} is no executable")
    return image


def section_of(image: lief.ELF.Binary, name: str) -> lief.ELF.Section:
    """One of its sections."""
    found = next((section for section in image.sections if section.name == name), None)
    if found is None:
        sys.exit(f"there is no {name}: the program was stripped")
    return found


def with_symbols(path: Path, offsets: Sequence[int]) -> list[str]:
    """Gives places of a program symbols of their own, since Debian's bpftrace probes where a symbol is and nowhere else.

    The code stays where it is in the file. objcopy adds symbols without a size, which bpftrace refuses: they are given one.

    Args:
        path: The program, which is written anew.
        offsets: In the file.

    Returns:
        The names of the symbols, in the order of the places.
    """
    before = image_of(path)
    text = section_of(before, ".text")
    names = [f"site_{offset:x}" for offset in offsets]
    places = {name: offset - text.offset for name, offset in zip(names, offsets, strict=True)}
    added = [f"--add-symbol={name}=.text:{place},function,global" for name, place in places.items()]
    subprocess.run(["objcopy", *added, path], check=True)
    after = image_of(path)  # symbols are parts of it, and gone when it is
    table = section_of(after, ".symtab")
    with path.open("r+b") as file:
        for at, symbol in enumerate(after.symtab_symbols):
            if symbol.name in names:
                file.seek(table.offset + at * _SYMBOL_BYTES + _SIZE_AT)
                file.write((1).to_bytes(8, "little"))
    return names


class Caller:
    """The program, waiting to be told.

    Args:
        path: Of its executable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def cpu_ns(self, function: str, calls: int) -> float:
        """CPU time of one call, of so many."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{function} {calls}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline().split()[0]) / calls

    def until_changed(self, places: int) -> None:
        """Waits until exactly so many bytes of its code are not as in its file."""
        deadline = time.monotonic() + _WAIT_S
        while len(changed_text(self.pid)) != places:
            if time.monotonic() > deadline:
                sys.exit(f"{self.path}: not {places} probes after {_WAIT_S:.0f} s")
            time.sleep(0.001)

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def coral(engine: Engine, caller: Caller, chosen: FunctionPlan, mode: Mode) -> Iterator[Callable[[], dict[str, int]]]:
    """Probes as an agent does, its rings drained meanwhile; yields what reads the counters."""
    slot = engine.acquire_slot(ProbeConfig(mode=mode), ProbeFilter())
    engine.add_member(slot, caller.pid)
    stopped = threading.Event()

    def pump() -> None:
        while not stopped.is_set():
            engine.wait(0.05)
            while engine.drain().more:
                pass
            time.sleep(_PAUSE_S)

    draining = threading.Thread(target=pump)
    draining.start()
    attachment = engine.attach(slot, str(caller.path), chosen, first_site=0, mode=mode)
    try:
        yield lambda: engine.counters(slot)
    finally:
        engine.begin_detach(slot)
        attachment.detach()
        stopped.set()
        draining.join()
        engine.drain()
        engine.release_slot(slot)


@contextmanager
def bpftrace(caller: Caller, program: str, *, sites: int) -> Iterator[subprocess.Popen[bytes]]:
    """Probes with bpftrace, from when its breakpoints are in the code to when they are gone from it."""
    started = start_bpftrace(program)
    try:
        caller.until_changed(sites)
        yield started
    finally:
        stop_bpftrace(started)
        caller.until_changed(0)


def start_bpftrace(program: str, *, probes: int = 512, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Starts it; it prints to a file, or to a pipe line by line."""
    found = shutil.which("bpftrace")
    if found is None:
        sys.exit("There is no bpftrace: apt-get install bpftrace (`make bench` does, as root).")
    limits = {"BPFTRACE_MAX_PROBES": str(probes)}
    return subprocess.Popen(
        [found, "-B", "full" if output else "none", "-e", program],
        stdout=output or subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | limits,
    )


def stop_bpftrace(started: subprocess.Popen[bytes], *, patience_s: float = _WAIT_S) -> bytes:
    """Ends it as Ctrl-C does, or, after the patience, as kill -9 does; returns what it still printed."""
    started.send_signal(signal.SIGINT)
    try:
        return started.communicate(timeout=patience_s)[0]
    except subprocess.TimeoutExpired:
        started.kill()
        return started.communicate()[0]


def first_line_s(started: subprocess.Popen[bytes], begun_s: float, *, skip: bytes = b"Attaching") -> float:
    """How long after ``begun_s`` the first line comes that does not begin with ``skip``."""
    assert started.stdout is not None
    text = b""
    while select.select([started.stdout], [], [], 60)[0]:
        chunk = os.read(started.stdout.fileno(), 65536)
        text += chunk
        if any(line and not line.startswith(skip) for line in text.split(b"\n")[:-1]):
            return time.perf_counter() - begun_s
        if not chunk:
            break
    sys.exit(f"no event came: {text.decode()}")
