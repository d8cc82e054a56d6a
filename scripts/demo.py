"""The demo: the example shop runs, Coral debugs one function of each of its services from the outside.

Drives the real ``coral`` command as a user would, and says which commands it runs. Ends by itself, with 0 only if both
sessions ran until their deadline, saw calls, and their ledgers balance. With ``--stay`` (``make dev``) shop and Coral run
until Ctrl-C.
"""

from __future__ import annotations

import argparse
import ctypes.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CORAL = ROOT / ".venv" / "bin" / "coral"
SHOP = {"checkout": "main.ProcessPayment", "pricing": "price_order"}
SESSION_S = 8
READY_DEADLINE_S = 30


class DemoError(Exception):
    """Something of the demo did not work; the message says what to do."""


def preflight() -> None:
    """Names what keeps the demo from running on this host.

    Raises:
        DemoError: The demo cannot run here.
    """
    if os.geteuid() != 0:
        raise DemoError(
            "The demo attaches probes, which needs root: run it as root (sudo make demo).\n"
            "Without root these still work: make test-unit, and coral against a colony elsewhere."
        )
    if ctypes.util.find_library("bpf") is None:
        raise DemoError("libbpf.so.1 is missing: apt-get install libbpf1")
    for service in SHOP:
        if not (ROOT / "build" / "examples" / service).exists():
            raise DemoError(f"build/examples/{service} is missing: run make examples")


def shown(command: list[str]) -> str:
    """The command as a user would type it in the checkout."""
    return shlex.join(command).replace(f"{ROOT}/", "")


def say(text: str = "") -> None:
    """Prints a line at once, also into a pipe."""
    print(text, flush=True)


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Runs a program in the background and ends it with SIGTERM, or if that does not help with SIGKILL."""
    say(f"  $ {shown(command)} &")
    # Names given by the environment would win over the program's own, and this is about what needs no configuration.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "CORAL_"))}
    # A group of its own, so that Ctrl-C in the terminal reaches this program alone, which then ends them in order.
    process = subprocess.Popen(command, env=environment, text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def shop() -> Iterator[dict[str, dict[str, Any]]]:
    """Runs both services; what they counted themselves is in the result once the block has ended."""
    counted: dict[str, dict[str, Any]] = {}
    with running([str(ROOT / "build/examples/checkout")], stdout=subprocess.PIPE) as checkout:
        with running([str(ROOT / "build/examples/pricing")], stdout=subprocess.PIPE) as pricing:
            yield counted
        counted["pricing"] = json.loads(pricing.stdout.read())  # type: ignore[union-attr]
    counted["checkout"] = json.loads(checkout.stdout.read())  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coral:
    """A running ``coral dev``."""

    colony: str  # HOST:PORT
    process: subprocess.Popen[str]
    said: list[str]  # lines of its standard error so far


@contextmanager
def coral_dev(arguments: list[str]) -> Iterator[Coral]:
    """Runs ``coral dev``; the block starts once it is ready.

    Raises:
        DemoError: It ended or did not get ready in time, or the block failed; its own words are part of the message.
    """
    said: list[str] = []
    ready: Queue[str | None] = Queue()

    def read(lines: Iterable[str]) -> None:
        for line in lines:
            said.append(line)
            if line.startswith('{"ready"'):
                ready.put(json.loads(line)["colony"])
        ready.put(None)

    with running([str(CORAL), "dev", *arguments], stderr=subprocess.PIPE) as process:
        threading.Thread(target=read, args=[process.stderr], daemon=True).start()
        try:
            colony = _wait_ready(ready, process)
            yield Coral(colony=colony, process=process, said=said)
        except DemoError as error:
            raise DemoError(f"{error}\ncoral dev said:\n{''.join(said[-40:])}") from None


def _wait_ready(ready: Queue[str | None], process: subprocess.Popen[str]) -> str:
    try:
        colony = ready.get(timeout=READY_DEADLINE_S)
    except Empty:
        raise DemoError(f"coral dev was not ready after {READY_DEADLINE_S} s.") from None
    if colony is None:
        raise DemoError(f"coral dev ended (exit {process.wait()}).")
    return colony


def attach(colony: str, service: str) -> dict[str, Any]:
    """Debugs the function of a service for a while; returns the session document.

    Raises:
        DemoError: The command failed; its own words are part of the message.
    """
    options = ["--colony", colony, "-o", "json"]
    command = [str(CORAL), *options, "debug", "attach", service, "-f", SHOP[service], "-d", f"{SESSION_S}s"]
    say(f"  $ {shown(command)}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SESSION_S + 30)
    except subprocess.TimeoutExpired:
        raise DemoError(f"{shown(command)} did not end by itself.") from None
    if not done.stdout.strip():
        raise DemoError(f"{shown(command)} failed (exit {done.returncode}):\n{done.stderr}")
    return dict(json.loads(done.stdout))


def duration(ns: int | None) -> str:
    """A duration for people, three digits."""
    if ns is None:
        return "-"
    units = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
    value, unit = next((ns / size, unit) for size, unit in units if ns >= size or size == 1)
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"


def report(session: dict[str, Any]) -> None:
    """Prints what one session found: how many calls, how long they took, the slowest ones, and the ledger."""
    statistics, ledger = session["statistics"], session["ledger"]
    took = statistics["duration_ns"]
    say()
    reason = session["reason"] or session["reason_code"]
    say(f"{session['service_name']}  {session['function_name']}   {session['status']}: {reason}")
    say(
        f"  calls    {statistics['calls']:,}, {statistics['calls_per_second']:,.0f}/s"
        f"   p50 {duration(took['p50'])}   p99 {duration(took['p99'])}   max {duration(took['max'])}"
    )
    for position, event in enumerate(session["slowest"][:5]):
        head = "slowest" if position == 0 else ""
        at = event["timestamp"][11:23]
        say(f"  {head:<8} {duration(event['duration_ns'])}  {at} UTC  pid {event['pid']} tid {event['tid']}")
    lost = ledger["ring_lost"] + ledger["queue_dropped"] + ledger["rate_limited"]
    say(
        f"  ledger   {ledger['entered']:,} entered = {ledger['returned']:,} returned + {ledger['unreturned']:,} unreturned"
        f" + {ledger['unseen']:,} unseen; {ledger['stored']:,} stored, {f'{lost:,} lost' if lost else 'nothing lost'};"
        f" {'balanced' if ledger['balanced'] else 'NOT balanced'}"
    )


def failures(session: dict[str, Any]) -> list[str]:
    """What a session of the demo should have shown and did not."""
    found = []
    if session["status"] != "expired":
        found.append(f"ended as {session['status']}, not at its deadline")
    if not session["ledger"]["balanced"]:
        found.append("the ledger does not balance")
    if not session["statistics"]["calls"] or not session["ledger"]["stored"]:
        found.append("no calls were seen")
    return [f"{session['service_name']}: {what}" for what in found]


def demo() -> None:
    """Runs the demo.

    Raises:
        DemoError: A session did not show what it should.
    """
    say("A small shop, in Go and in C, that knows nothing of Coral:")
    with shop() as counted, tempfile.TemporaryDirectory(prefix="coral-demo-") as state:
        say("Coral: a colony, and an agent for this host:")
        with coral_dev(["--state-dir", state, "--colony-port", "0", "--agent-port", "0"]) as coral:
            say(f"Which calls are slow? One function of each service is watched for {SESSION_S} s:")
            with ThreadPoolExecutor() as pool:
                sessions = list(pool.map(lambda service: attach(coral.colony, service), SHOP))
            for session in sessions:
                report(session)
            if wrong := [what for session in sessions for what in failures(session)]:
                raise DemoError("\n".join(wrong))
    say()
    for service, own in counted.items():
        say(
            f"{service} went on undisturbed. In all its life it counted {own['calls']:,} calls, {own['slow']:,} of them slow."
        )


def stay() -> None:
    """Leaves shop and Coral running until Ctrl-C or SIGTERM.

    Raises:
        DemoError: ``coral dev`` ended by itself.
    """
    with shop(), tempfile.TemporaryDirectory(prefix="coral-dev-") as state, coral_dev(["--state-dir", state]) as coral:
        say()
        say("Running until Ctrl-C. In another terminal, in this folder, try:")
        say("  .venv/bin/coral service list")
        say("  .venv/bin/coral debug attach checkout -f main.ProcessPayment -d 20s")
        say("  .venv/bin/coral debug attach pricing -f price_order -d 10s --min-duration 10ms --follow")
        try:
            exit_code = coral.process.wait()
        except KeyboardInterrupt:
            say()
            return
        raise DemoError(f"coral dev ended (exit {exit_code}).")


def main() -> int:
    """Runs what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stay", action="store_true", help="leave everything running until Ctrl-C")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then too
    try:
        preflight()
        stay() if arguments.stay else demo()
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
