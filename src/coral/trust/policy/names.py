"""What policies say of a function that was found, by everything that its code is called.

A policy compares ``context.function`` with a text. Whoever asks types one of many ways of writing a function, and may mean
code that has other names as well. So the policies are asked about each of them:

* what they forbid for any name is forbidden;
* of each function that the code is, one way of writing it has to be permitted;
* what asks for an approval for any name asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coral.model.resolved import ResolvedFunction
from coral.trust.policy.policies import Decision, Policies, Policy
from coral.trust.policy.question import Question

MOST_NAMES = 20_000
"""That are asked about for one attach; each takes some tenths of a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesDecision:
    """What the policies say.

    Attributes:
        decision: Of all names together.
        question: About the name that decided; of what is allowed, the one that was asked at first.
        approvals: The policies that ask for somebody else's approval, for any of the names.
    """

    decision: Decision
    question: Question
    approvals: tuple[Policy, ...] = ()


def decide_names(policies: Policies, question: Question, functions: Sequence[ResolvedFunction]) -> NamesDecision:
    """Asks the policies about functions that were found; blocking.

    Args:
        policies: Those.
        question: As it was asked about the name that somebody typed.
        functions: What that name stands for.
    """
    decided: dict[str, Policy] = {}
    approvals: dict[str, Policy] = {}
    if sum(len(ways) for function in functions for ways in function.spellings) > MOST_NAMES:
        return _refused(question, "the function has too many names to be judged by")
    for function in functions:
        if not function.complete:
            return _refused(question, f"{function.name} has too many names to be judged by")
        for ways in function.spellings:
            unpermitted, permitted = None, False
            for way in ways:
                asked = replace(question, circumstances=replace(question.circumstances, function=way))
                answer = policies.decide(asked)
                if answer.allowed:
                    permitted = True
                    decided |= {policy.policy_id: policy for policy in answer.policies}
                    if answer.approval is not None:
                        approvals[answer.approval.policy_id] = answer.approval
                elif answer.policies or answer.trouble:
                    return NamesDecision(decision=answer, question=asked)
                elif unpermitted is None:
                    unpermitted = NamesDecision(decision=answer, question=asked)
            if not permitted and unpermitted is not None:
                return unpermitted
    needed = tuple(approvals.values())
    allowed = Decision(allowed=True, policies=tuple(decided.values()), approval=needed[0] if needed else None)
    return NamesDecision(decision=allowed, question=question, approvals=needed)


def _refused(question: Question, trouble: str) -> NamesDecision:
    return NamesDecision(decision=Decision(allowed=False, trouble=trouble), question=question)
