"""The processes that parse files: ``python -m coral.elf.worker FD``, the template, and its forks, the readers.

The template imports what parsing needs (half a second), confines itself, and never sees a file. For each image it forks a
reader, so that a hostile file has nothing but its own reader to take over, to fill or to bring down.

FD is one end of a unix socket of packets to the agent. The template's first packet is its greeting; then it is told ``f``,
with a stream socket along (SCM_RIGHTS), and answers with the process id of the reader at that stream and a handle on it
(pidfd), or without one with the reason why there is none; or ``w`` and a process id, and answers with its exit status once it
ended.

On a reader's stream a message is its length in four bytes (big endian) and JSON. First comes its greeting. Each request
brings descriptors along, of the image and of files that may hold its symbols, so that no reader opens anything by path.
"""

from __future__ import annotations

import codecs
import gc
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coral.elf import sandbox
from coral.elf.explain import explain
from coral.elf.file import ElfFile
from coral.elf.image import ImageKey, OpenFile
from coral.elf.inspect_messages import explanation_to_json, page_to_json
from coral.elf.listing import Listing
from coral.elf.messages import MOST_FILES, error_to_json, info_to_json, plan_to_json, read_exactly
from coral.elf.plan import plan
from coral.elf.program import Program
from coral.model.errors import CoralError, FailedPrecondition

_LENGTH = struct.Struct(">I")
_PACKET_BYTES = 16
_GARBAGE = (200_000, 20, 100)
"""When garbage is looked for: tables of 100,000 functions are no garbage, and looking took a quarter of the time."""
_CODECS = ("ascii", "latin-1", "utf-8", "utf-16-le", "unicode_escape", "raw_unicode_escape")
"""Python imports a codec when it is first asked for, when no file can be opened any more."""


class Worker:
    """Answers requests about one image; keeps it, with what was found out about it."""

    def __init__(self) -> None:
        self._keys: tuple[ImageKey, ...] = ()
        self._program: Program | None = None
        self._listing: Listing | None = None
        self._operations: dict[str, Callable[[Program, dict[str, Any]], object]] = {
            "identify": lambda program, request: info_to_json(program.file.info),
            "plan": lambda program, request: plan_to_json(
                plan(program, request["function"], library=request["library"], advise=request["advise"])
            ),
            "explain": lambda program, request: explanation_to_json(
                explain(program, request["function"], library=request["library"])
            ),
            "list": lambda program, request: page_to_json(self._listed(program).page(*request["page"])),
            "judge": lambda program, request: self._listed(program).judge(*request["page"], budget_s=request["budget_s"]),
        }

    def answer(self, request: dict[str, Any], descriptors: Sequence[int]) -> dict[str, object]:
        """The answer to one request: ``{"ok": ...}`` or ``{"error": ...}``.

        Args:
            request: With ``files`` for the descriptors: the image, then files that may hold its symbols.
            descriptors: As they came along.
        """
        try:
            files = [
                OpenFile(fd=fd, key=ImageKey(**file["key"]), path=file["path"], linked=file["linked"])
                for fd, file in zip(descriptors, request["files"], strict=True)
            ]
            _check_unchanged(files)
            answer = self._operations[request["operation"]](self._opened(files), request)
            _check_unchanged(files)
            return {"ok": answer}
        except CoralError as error:
            return {"error": error_to_json(error)}

    def _opened(self, files: Sequence[OpenFile]) -> Program:
        keys = tuple(file.key for file in files)
        if self._program is None or self._keys != keys:
            self._program = Program(ElfFile(files[0].fd, files[0].path), debug=files[1:])
            self._keys = keys
            self._listing = None
        return self._program

    def _listed(self, program: Program) -> Listing:
        if self._listing is None:
            self._listing = Listing(program)
        return self._listing


def _check_unchanged(files: Sequence[OpenFile]) -> None:
    for file in files:
        if ImageKey.of_fd(file.fd) != file.key:
            raise FailedPrecondition(f"{file.path} was changed while it was read.", hint="Try again once it is complete.")


def serve(connection: socket.socket) -> None:
    """Answers requests until the other side closes.

    What is no CoralError is a defect of this code, which the file has found: it is sent (``{"defect": ...}``), and raised.
    """
    worker = Worker()
    while True:
        head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, MOST_FILES)
        if not head:
            return
        try:
            head += read_exactly(connection, _LENGTH.size - len(head))
            request = json.loads(read_exactly(connection, _LENGTH.unpack(head)[0]))
            # Of CPU time, and of a reader that nobody waits for any more too; how long it takes is for the agent to limit.
            signal.setitimer(signal.ITIMER_PROF, request["limit_s"])
            answer = worker.answer(request, descriptors)
            signal.setitimer(signal.ITIMER_PROF, 0)
        except MemoryError:
            del worker  # so that there is room for this sentence
            _send(connection, {"memory": True})
            raise
        except Exception as error:
            _send(connection, {"defect": _where(error)})
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        _send(connection, answer)


def _send(connection: socket.socket, answer: dict[str, object]) -> None:
    reply = json.dumps(answer).encode()
    connection.sendall(_LENGTH.pack(len(reply)) + reply)


def _where(error: Exception) -> str:
    """What was raised, and the line that raised it; without the message, which may have anything in it from the file."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return type(error).__name__
    return f"{type(error).__name__} in {Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}"


def _become_reader(connection: socket.socket, template: int) -> None:
    try:
        sandbox.end_with(template)
        greeting: dict[str, object] = {"left_out": sandbox.seal()}
    except CoralError as error:
        _send(connection, {"error": error_to_json(error)})
        return
    _send(connection, greeting)
    serve(connection)


def _run_template(control: socket.socket) -> None:
    """Forks and collects readers until the agent closes."""
    template = os.getpid()
    while True:
        command, descriptors, _, _ = socket.recv_fds(control, _PACKET_BYTES, 1)
        if not command:
            return
        if command == b"f":
            (descriptor,) = descriptors
            try:
                reader = os.fork()
            except OSError as error:
                os.close(descriptor)
                control.send(str(error.strerror).encode())
                continue
            if not reader:
                status = 1
                try:
                    control.close()
                    with socket.socket(fileno=descriptor) as connection:
                        _become_reader(connection, template)
                    status = 0
                finally:
                    os._exit(status)
            os.close(descriptor)
            handle = os.pidfd_open(reader)
            socket.send_fds(control, [str(reader).encode()], [handle])
            os.close(handle)
        else:
            _, status = os.waitpid(int(command.removeprefix(b"w")), 0)
            control.send(str(os.waitstatus_to_exitcode(status)).encode())


def main() -> None:
    """Confines this process, then forks readers."""
    agent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        for codec in _CODECS:
            codecs.lookup(codec)
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            greeting: dict[str, object] = {"left_out": sandbox.confine()}
            sandbox.end_with(agent)
        except CoralError as error:
            control.send(json.dumps({"error": error_to_json(error)}).encode())
            return
        for standard in range(3):
            os.dup2(nothing, standard)
        os.close(nothing)
        # What is there now is never collected, so that collections do not unshare the memory that all readers share.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GARBAGE)
        control.send(json.dumps(greeting).encode())
        _run_template(control)


if __name__ == "__main__":
    main()
