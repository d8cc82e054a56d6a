"""What the policies say, in sentences: for who was refused, and for who asks why."""

from __future__ import annotations

from collections.abc import Sequence

from coral.model.errors import PermissionDenied
from coral.model.principal import Principal, Role
from coral.model.text import printable
from coral.trust.policy.policies import Decision, Policies, Policy
from coral.trust.policy.question import Question


class ApprovalRequired(PermissionDenied):
    """Allowed as soon as somebody else has approved it; the details name the request for that."""


def refusal(policies: Policies, question: Question, decision: Decision) -> PermissionDenied:
    """The error that a refused question ends with: the action, the policy, and what would help."""
    who, what = _who(question.principal), _what(question)
    details = {"action": question.action}
    if decision.trouble:
        return PermissionDenied(
            f"The policies could not be asked whether {who} may do {what}: {decision.trouble}.",
            hint="`coral policy check` says whether they are in order.",
            details=details,
        )
    if decision.policies:
        return PermissionDenied(
            f"{who} may not do {what}: {_forbidden_by(decision.policies)}.",
            hint="Ask who keeps the policies.",
            details=details | {"policy": decision.policies[0].policy_id},
        )
    role = policies.role_for(question)
    return PermissionDenied(
        f"No policy permits {who} to do {what}.", hint=_would_help(question.principal, role), details=details
    )


def refusal_of_name(policies: Policies, question: Question, decision: Decision, typed: str) -> PermissionDenied:
    """The same where it was for a name of a function that is not the one that somebody typed; that is said."""
    error, name = refusal(policies, question, decision), question.circumstances.function
    if name == typed:
        return error
    return PermissionDenied(
        f"{error.message} It is about {printable(name)!r}, which {printable(typed)!r} stands for.",
        hint=error.hint,
        details=error.details | {"function": printable(name)},
    )


def explained(policies: Policies, question: Question, decision: Decision) -> str:
    """One or two sentences on what was decided, and by what."""
    who, what = _who(question.principal), _what(question)
    if not decision.allowed:
        return str(refusal(policies, question, decision))
    permits = _listed(decision.policies)
    if decision.approval is not None:
        asking = f"{decision.approval} asks for that ({decision.approval.approval})"
        return f"{who} may do {what} once somebody else has approved it: {asking}. Permitted by {permits}."
    return f"{who} may do {what}. Permitted by {permits}."


def _who(principal: Principal) -> str:
    return f"{printable(principal.name)} ({principal.role or 'no role'})"


def _what(question: Question) -> str:
    action = printable(question.action)
    return f"{action} on service {question.target.name!r}" if question.target else action


def _forbidden_by(forbids: Sequence[Policy]) -> str:
    said = f": {forbids[0].description.rstrip('.')}" if forbids[0].description else ""
    return f"{_listed(forbids)} {'forbids' if len(forbids) == 1 else 'forbid'} it{said}"


def _listed(policies: Sequence[Policy]) -> str:
    return ", ".join(str(policy) for policy in policies)


def _would_help(principal: Principal, role: Role | None) -> str:
    if role is not None and role not in principal.roles:
        return f"The role {role} may: ask for a token with it (`coral token create NAME --role {role}`)."
    return "It takes more than a role: ask who keeps the policies, or see `coral policy explain`."
