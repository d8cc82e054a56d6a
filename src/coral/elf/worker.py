"""The process that parses files: ``python -m coral.elf.worker FD``.

FD is one end of a unix stream socket; the parent holds the other. A message is its length in four bytes (big endian) and
JSON. Each request brings descriptors along (SCM_RIGHTS), of the image and of files that may hold its symbols, so that this
process opens nothing by path. It answers one request at a time, and ends when its parent does.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from coral.elf.file import ElfFile
from coral.elf.image import ImageKey, OpenFile
from coral.elf.messages import MOST_FILES, error_to_json, info_to_json, plan_to_json, read_exactly
from coral.elf.plan import plan
from coral.elf.program import Program
from coral.model.errors import CoralError, FailedPrecondition, Internal

_LENGTH = struct.Struct(">I")
_IMAGES = 8
_MEMORY_BYTES = 4 << 30
_DESCRIPTORS = 64
_PR_SET_PDEATHSIG = 1


class Worker:
    """Answers requests; keeps the images that were used last."""

    def __init__(self) -> None:
        self._programs: OrderedDict[tuple[ImageKey, ...], Program] = OrderedDict()
        self._operations: dict[str, Callable[[Program, dict[str, Any]], object]] = {
            "identify": lambda program, request: info_to_json(program.file.info),
            "plan": lambda program, request: plan_to_json(plan(program, request["function"], library=request["library"])),
        }

    def answer(self, request: dict[str, Any], descriptors: Sequence[int]) -> dict[str, object]:
        """The answer to one request: ``{"ok": ...}`` or ``{"error": ...}``.

        Args:
            request: With ``files`` for the descriptors: the image, then files that may hold its symbols.
            descriptors: As they came along.
        """
        path = request["files"][0]["path"]
        try:
            files = [
                OpenFile(fd=fd, key=ImageKey(**file["key"]), path=file["path"], linked=file["linked"])
                for fd, file in zip(descriptors, request["files"], strict=True)
            ]
            _check_unchanged(files)
            answer = self._operations[request["operation"]](self._program(files), request)
            _check_unchanged(files)
            return {"ok": answer}
        except CoralError as error:
            return {"error": error_to_json(error)}
        except MemoryError:
            self._programs.clear()
            return {"error": error_to_json(Internal(f"{path} needs more than {_MEMORY_BYTES >> 30} GiB to read."))}

    def _program(self, files: Sequence[OpenFile]) -> Program:
        keys = tuple(file.key for file in files)
        program = self._programs.get(keys)
        if program is None:
            program = self._programs[keys] = Program(ElfFile(files[0].fd, files[0].path), debug=files[1:])
            while len(self._programs) > _IMAGES:
                self._programs.popitem(last=False)
        self._programs.move_to_end(keys)
        return program


def _check_unchanged(files: Sequence[OpenFile]) -> None:
    for file in files:
        if ImageKey.of_fd(file.fd) != file.key:
            raise FailedPrecondition(f"{file.path} was changed while it was read.", hint="Try again once it is complete.")


def serve(connection: socket.socket) -> None:
    """Answers requests until the other side closes."""
    worker = Worker()
    while True:
        head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, MOST_FILES)
        if not head:
            return
        try:
            head += read_exactly(connection, _LENGTH.size - len(head))
            request = json.loads(read_exactly(connection, _LENGTH.unpack(head)[0]))
            reply = json.dumps(worker.answer(request, descriptors)).encode()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        connection.sendall(_LENGTH.pack(len(reply)) + reply)


def main() -> None:
    """Limits this process, then serves."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        serve(connection)


if __name__ == "__main__":
    main()
