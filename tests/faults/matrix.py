"""The whole matrix: every module here whose name ends in ``_cases``, what is chosen of them, and a round of that."""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
from collections.abc import Iterator, Sequence

import faults
from faults.cases import CASES, Case
from faults.run import Verdict, play, warm
from faults.stack import fault_stack

for _module in pkgutil.iter_modules(faults.__path__):
    if _module.name.endswith("_cases"):  # its cases are registered when it is imported
        importlib.import_module(f"faults.{_module.name}")


def chosen_cases(patterns: Sequence[str] | None = None) -> list[Case]:
    """The cases whose names match any of the patterns; all without patterns."""
    return [case for case in CASES.values() if not patterns or any(fnmatch.fnmatch(case.name, one) for one in patterns)]


def round_of(chosen: Sequence[Case], *, seed: int) -> Iterator[Verdict]:
    """Each case once, those that bear it on the same daemons."""
    for setting in dict.fromkeys(case.setting for case in chosen if not case.own_stack):
        with fault_stack(setting=setting) as stack:
            before = warm(stack)
            for case in chosen:
                if case.setting is setting and not case.own_stack:
                    yield play(stack, case, seed=seed, before=before)
    for case in chosen:
        if case.own_stack:
            with fault_stack(setting=case.setting) as stack:
                yield play(stack, case, seed=seed, before=warm(stack))
