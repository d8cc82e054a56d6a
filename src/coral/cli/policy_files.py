"""Checks files of policies, and tries cases on them: without any colony."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from coral.cli.listings import emit_items
from coral.cli.options import Globals
from coral.cli.output import emit, emit_document, narrate
from coral.cli.tables import emit_table
from coral.config.settings import load_colony_settings
from coral.model.text import printable
from coral.trust.policy.cases import Verdict, question_of, read_cases, try_case
from coral.trust.policy.folder import SUFFIX, read_file, read_folder
from coral.trust.policy.policies import DEFAULT_NAME, BrokenPolicies, Policies, Source, default_source, load
from coral.trust.policy.words import explained

_MARKS = {True: "ok", False: "WRONG"}


def check_files(options: Globals, paths: Sequence[Path]) -> int:
    """Prints what is wrong with the policies in files and folders, a line each; 1 if anything is."""
    faults: list[dict[str, object]] = []
    try:
        policies = load([default_source(), *_sources(paths)])
        own = [policy for policy in policies.all if policy.source != DEFAULT_NAME]
    except BrokenPolicies as error:
        own = []
        faults = [{"source": one.source, "line": one.line, "message": one.message} for one in error.faults]
    if options.form != "table":
        emit_document({"ok": not faults, "policies": [policy.policy_id for policy in own], "faults": faults})
    elif faults:
        emit("".join(f"{fault['source']}:{fault['line']}: {fault['message']}\n" for fault in faults))
    else:
        emit(f"{len(own):,} {'policy is' if len(own) == 1 else 'policies are'} in order.\n")
    return 1 if faults else 0


def test_file(options: Globals, path: Path, paths: Sequence[Path]) -> int:
    """Prints how the cases of a file come out; 1 if one comes out otherwise than expected."""
    cases = read_cases(path, read_file(path).text)
    policies = _policies_for([*paths, *(path.parent / name for name in cases.policies)])
    verdicts = [try_case(policies, case, now_ns=time.time_ns()) for case in cases.cases]
    wrong = sum(not verdict.right for verdict in verdicts)
    if options.form != "table":
        emit_items(options, [_document(policies, verdict) for verdict in verdicts])
    else:
        rows = [_row(number, verdict) for number, verdict in enumerate(verdicts, 1)]
        emit_table(("CASE", "EXPECTED", "GOT", "", "BY"), rows, color=options.color)
    for verdict in verdicts:
        if not verdict.right:
            question = question_of(verdict.case, now_ns=time.time_ns())
            narrate(explained(policies, question, verdict.decision))
    narrate(f"{len(verdicts):,} cases, {wrong:,} of them wrong.")
    return 1 if wrong else 0


def _policies_for(paths: Sequence[Path]) -> Policies:
    if paths:
        return load([default_source(), *_sources(paths)])
    folder = load_colony_settings({}).policy_dir
    narrate(f"Policies: the default ones{f', and those in {folder}' if folder else ' alone'}.")
    return load([default_source(), *(read_folder(Path(folder)) if folder else ())])


def _sources(paths: Iterable[Path]) -> list[Source]:
    """The texts of files and folders, named as they were given."""
    files = [file for path in paths for file in (sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path])]
    return [replace(read_file(file), name=printable(str(file))) for file in files]


def _row(number: int, verdict: Verdict) -> tuple[str, ...]:
    case = verdict.case
    what = f"{case.principal.name} {case.action}{f' {case.resource.service}' if case.resource else ''}"
    by = verdict.decision.trouble or ", ".join(policy.policy_id for policy in verdict.decision.policies)
    expected = f"{case.expect} by {case.policy}" if case.policy else case.expect
    return f"{number} {case.name or what}", expected, verdict.got, _MARKS[verdict.right], by or "no policy permits it"


def _document(policies: Policies, verdict: Verdict) -> dict[str, object]:
    question = question_of(verdict.case, now_ns=time.time_ns())
    return {
        "name": verdict.case.name,
        "expect": verdict.case.expect,
        "got": verdict.got,
        "right": verdict.right,
        "policies": [policy.policy_id for policy in verdict.decision.policies],
        "text": explained(policies, question, verdict.decision),
    }
