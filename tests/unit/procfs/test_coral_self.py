from __future__ import annotations

import pytest

from coral.procfs.coral_self import is_coral
from coral.procfs.process import Process, ProcessId


def process(command: str, executable: str = "/usr/bin/python3.11") -> Process:
    """A process with these arguments, separated by blanks."""
    id = ProcessId(pid=77, start_time_ns=0)
    return Process(id=id, ppid=1, executable=executable, deleted=False, cmdline=tuple(command.split()), environ={})


@pytest.mark.parametrize(
    "command",
    [
        "/repo/.venv/bin/python /repo/.venv/bin/coral dev",
        "python3 -I /usr/bin/coral agent start",
        "python -m coral.elf.worker",
        "python -m coral colony start",
        "python -mcoral.elf.worker",
        "python -Im coral trace 1 main",
        "python -X dev -W error -u -m coral.elf.worker",
        "python -Xdev -Werror -bb --check-hash-based-pycs always coral",
        "python -- coral",
    ],
)
def test_coral_is_recognised(command: str) -> None:
    """A Python that runs the command or a module of the package, whatever options it has."""
    assert is_coral(process(command))


@pytest.mark.parametrize(
    "command",
    [
        "python app.py coral",
        "python -m gunicorn coral:app",
        "python -c import_coral coral",
        "python -m coral_reef",
        "python coral.py",
        "python -W coral",
        "python -",
        "python",
        "",
    ],
)
def test_other_programs_are_not(command: str) -> None:
    """Having the word among its arguments does not make a program Coral."""
    assert not is_coral(process(command))


def test_a_program_of_another_language_is_not() -> None:
    """Some other thing called coral is a service like any other."""
    assert not is_coral(process("coral serve", executable="/opt/coral/bin/coral"))
    assert not is_coral(process("ruby coral", executable="/usr/bin/ruby"))


def test_the_agents_own_pids_are() -> None:
    """The agent knows itself, however it was started."""
    assert is_coral(process("pytest tests"), own_pids=frozenset({77}))
    assert not is_coral(process("pytest tests"), own_pids=frozenset({78}))
