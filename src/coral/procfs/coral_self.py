"""Which processes are Coral's own: they are never instances of a service, so that it never probes itself."""

from __future__ import annotations

import re

from coral.procfs.process import Process

_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*t?d?", re.ASCII)
_OPTIONS_WITH_VALUE = frozenset("WX")
"""Options of python(1) whose value may be an argument of its own; ``-c`` and ``-m`` end the options."""


def is_coral(process: Process, *, own_pids: frozenset[int] = frozenset()) -> bool:
    """Whether this is the agent, its worker, a colony, ``coral dev`` or the command line.

    It is when its pid is one of ``own_pids``, or when it is a Python that runs a script named ``coral`` or a module of the
    ``coral`` package. A program of another language that is called ``coral`` is not.
    """
    if process.id.pid in own_pids:
        return True
    if not _PYTHON.fullmatch(process.executable.rpartition("/")[2]):
        return False
    module, script = _what_python_runs(process.cmdline[1:])
    return module.split(".")[0] == "coral" or script.rpartition("/")[2] == "coral"


def _what_python_runs(arguments: tuple[str, ...]) -> tuple[str, str]:
    """The module or the script that python(1) runs with these arguments; empty what it does not."""
    pending = list(reversed(arguments))
    while pending:
        argument = pending.pop()
        if argument == "--":
            return "", pending.pop() if pending else ""
        if not argument.startswith("-") or argument == "-":
            return "", argument
        if argument.startswith("--"):
            if argument == "--check-hash-based-pycs" and pending:
                pending.pop()
            continue
        for position, letter in enumerate(argument[1:], start=1):
            rest = argument[position + 1 :]
            if letter == "m":
                return rest or (pending.pop() if pending else ""), ""
            if letter == "c":
                return "", ""
            if letter in _OPTIONS_WITH_VALUE:
                if not rest and pending:
                    pending.pop()
                break
    return "", ""
