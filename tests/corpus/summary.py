"""The corpus in figures: what share of the functions is exact, and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from coral.model.site import Method
from corpus.check import REFUSED, Outcome

_REASONS = 24
_KINDS = (Method.RET_SITES.value, Method.ENTRY_ONLY.value, REFUSED)


def table(found: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """A line for each image, and one for all."""
    width = max(map(len, found), default=5)
    lines = [f"{'image':{width}}  functions     exact  entry only   refused  faults"]
    lines += [f"{name:{width}}  {_shares(outcomes)}" for name, outcomes in found.items()]
    lines.append(f"{'total':{width}}  {_shares([outcome for outcomes in found.values() for outcome in outcomes])}")
    return lines


def _shares(outcomes: Sequence[Outcome]) -> str:
    kinds = Counter(outcome.verdict for outcome in outcomes)
    shares = [f"{100 * kinds[kind] / len(outcomes):.2f} %" if outcomes else "-" for kind in _KINDS]
    faults = sum(bool(outcome.faults) for outcome in outcomes)
    return f"{len(outcomes):9,}  {shares[0]:>8}  {shares[1]:>10}  {shares[2]:>8}  {faults:6}"


def reasons(found: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """Why functions are not exact, the most frequent first, each with an example."""
    total = sum(map(len, found.values()))
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for name, outcomes in found.items():
        for outcome in outcomes:
            if outcome.reason:
                kind = (outcome.verdict, outcome.reason)
                counts[kind] += 1
                examples.setdefault(kind, f"{name} {outcome.name[:60]}")
    lines = [
        f"{100 * count / total:7.3f} %  {count:6,}  {verdict:10}  {reason}  ({examples[verdict, reason]})"
        for (verdict, reason), count in counts.most_common(_REASONS)
    ]
    rest = sum(count for _, count in counts.most_common()[_REASONS:])
    if rest:
        lines.append(f"{100 * rest / total:7.3f} %  {rest:6,}  for {len(counts) - _REASONS} other reasons")
    return lines


def faults(found: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """Everything that objdump sees differently."""
    return [
        f"{name} {outcome.name}: {fault}"
        for name, outcomes in found.items()
        for outcome in outcomes
        for fault in outcome.faults
    ]
