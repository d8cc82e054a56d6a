"""A set of policies in force: what was written, checked against the schema, ready to be asked."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import cedarpy

from coral.model.errors import InvalidArgument
from coral.model.principal import Kind, Role
from coral.model.text import printable
from coral.trust.policy.question import Question, entities_of, request_of, role_entities
from coral.trust.policy.statements import Statement, statements

MAX_POLICIES = 1000
DEFAULT_NAME = "default.cedar"
_ATTACH = {"op": "==", "entity": {"type": "Action", "id": "AttachUprobe"}}
_ANNOTATIONS = ("id", "description", "approval")
_MAX_ANNOTATION = 500
_FOR_ACTION = re.compile(r' for Action::"\w+"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A text of policies.

    Attributes:
        name: What messages call it: the name of its file.
        text: What is written there.
    """

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a policy, and where: source, line, and a message without a full stop."""

    source: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy, as far as people are told of it.

    Attributes:
        policy_id: Its ``@id``, else where it stands.
        effect: ``permit`` or ``forbid``.
        source: The name of its text.
        line: Where it begins there.
        description: Its ``@description``; may be empty.
        approval: Its ``@approval``: why somebody else has to approve what it permits; None if nobody has to.
    """

    policy_id: str
    effect: str
    source: str
    line: int
    description: str = ""
    approval: str | None = None

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.source}:{self.line}"

    def __str__(self) -> str:
        if self.policy_id == self.place:
            return f"policy {self.place}"
        return f"policy {self.policy_id!r} ({self.place})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the policies say.

    Attributes:
        allowed: Whether it may be done, an approval permitting.
        policies: Those that decided: of a permission the permits that apply, of a refusal the forbids; none of them applies
            where nothing permits.
        approval: The one among them that asks for somebody else's approval; None if nobody is needed.
        trouble: Why the policies could not be asked; it was refused then.
    """

    allowed: bool
    policies: tuple[Policy, ...] = ()
    approval: Policy | None = None
    trouble: str = ""


class BrokenPolicies(InvalidArgument):
    """Policies that cannot be in force; ``faults`` has all that is wrong with them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        first, more = faults[0], len(faults) - 1
        rest = f" (and {more:,} more)" if more else ""
        super().__init__(
            f"{first}{rest}.",
            hint="`coral policy check FILE` says all that is wrong.",
            details={"faults": "\n".join(str(fault) for fault in faults[:20])},
        )
        self.faults = tuple(faults)


class Policies:
    """What is in force. Made by ``load``; never changes, and may be asked from any thread.

    Attributes:
        all: What people are told of them.
        speaks_of_functions: Whether any answer can depend on which function is meant.
    """

    def __init__(self, found: Sequence[tuple[Policy, dict[str, Any]]]) -> None:
        self.all = tuple(policy for policy, _ in found)
        self._by_id = {policy.policy_id: policy for policy in self.all}
        document = {"templates": {}, "staticPolicies": {p.policy_id: tree for p, tree in found}, "templateLinks": []}
        self.speaks_of_functions = any(_reads_function(tree) for _, tree in found)
        self._handle = cedarpy.PolicySet.from_json_str(json.dumps(document))

    @property
    def only_default(self) -> bool:
        """Whether there are no others than those that come with Coral."""
        return all(policy.source == DEFAULT_NAME for policy in self.all)

    def decide(self, question: Question) -> Decision:
        """Asks every policy. A policy that fails to be evaluated makes the answer no: it might have forbidden.

        Takes some tenths of a millisecond.
        """
        if question.principal.kind is not Kind.USER:
            return Decision(allowed=False, trouble="policies are about users")
        try:
            # Not held to the schema once more: they are made here, and that would take a tenth of a millisecond.
            entities = _roles().with_added_json_str(entities_of(question))
            answer = cedarpy.is_authorized(request_of(question), self._handle, entities, schema())
        except ValueError as error:
            return Decision(allowed=False, trouble=printable(str(error)))
        troubles = answer.diagnostics.errors
        if troubles or answer.decision is cedarpy.Decision.NoDecision:
            return Decision(
                allowed=False, trouble=printable("; ".join(str(trouble) for trouble in troubles)) or "no decision"
            )
        applying = (self._by_id[policy_id] for policy_id in answer.diagnostics.reasons)
        decided = tuple(sorted(applying, key=lambda policy: (policy.source != DEFAULT_NAME, policy.source, policy.line)))
        approval = next((policy for policy in decided if policy.approval is not None), None) if answer.allowed else None
        return Decision(allowed=answer.allowed, policies=decided, approval=approval)

    def role_for(self, question: Question) -> Role | None:
        """The least role with which the principal might do it; None if it takes more than a role."""
        for role in Role:
            asked = replace(question, principal=replace(question.principal, roles=(role,)))
            if self.decide(asked).allowed:
                return role
        return None


def load(sources: Iterable[Source]) -> Policies:
    """The policies of all texts together.

    Raises:
        BrokenPolicies: One of them is not right, or two have the same ``@id``.
    """
    found: list[tuple[Policy, dict[str, Any]]] = []
    faults: list[Fault] = []
    places: dict[str, Policy] = {}
    for source in sources:
        for statement in statements(source.text):
            if len(found) + len(faults) >= MAX_POLICIES:
                faults.append(_fault(source, statement, f"there are more than {MAX_POLICIES:,} policies"))
                break
            try:
                policy, tree = _read(source, statement)
            except _FaultyPolicy as error:
                faults.extend(error.faults)
                continue
            earlier = places.setdefault(policy.policy_id, policy)
            if earlier is not policy:
                faults.append(_fault(source, statement, f"@id({json.dumps(policy.policy_id)}) is taken by {earlier.place}"))
            found.append((policy, tree))
    if faults:
        raise BrokenPolicies(faults)
    return Policies(found)


def default_source() -> Source:
    """The policies that come with Coral."""
    return Source(name=DEFAULT_NAME, text=_packaged(DEFAULT_NAME))


@functools.cache
def schema() -> cedarpy.Schema:
    """What policies can speak of."""
    return cedarpy.Schema.from_str(_packaged("coral.cedarschema"))


@functools.cache
def actions() -> tuple[str, ...]:
    """The names of all that can be asked for, in the schema's order; its groups are none."""
    groups = re.findall(
        r"^action ([\w,\s]+?)(?: in \[\w+\][^\n]*)?\n +appliesTo", _packaged("coral.cedarschema"), re.MULTILINE
    )
    return tuple(name.strip() for group in groups for name in group.split(","))


def _reads_function(tree: Any) -> bool:
    """Whether a part of a policy, as Cedar has it in JSON, reads ``context.function``, or the context as a whole."""
    if isinstance(tree, list):
        return any(map(_reads_function, tree))
    if not isinstance(tree, dict):
        return False
    for operator in (".", "has"):
        access = tree.get(operator)
        if isinstance(access, dict) and access.get("left") == {"Var": "context"}:
            return access.get("attr") == "function"
    return tree.get("Var") == "context" or any(map(_reads_function, tree.values()))


class _FaultyPolicy(Exception):
    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults)
        self.faults = faults


def _read(source: Source, statement: Statement) -> tuple[Policy, dict[str, Any]]:
    if statement.fault:
        raise _FaultyPolicy([_fault(source, statement, statement.fault)])
    try:
        written = cedarpy.policies_to_json_str(statement.text)
    except ValueError as error:
        raise _FaultyPolicy([_fault(source, statement, str(error))]) from None
    try:
        cedarpy.PolicySet.from_json_str(written)  # takes less nesting than the parser does
        document = json.loads(written)
    except (ValueError, RecursionError):
        raise _FaultyPolicy(
            [_fault(source, statement, "it is a chain too long for Cedar: use sets, or several policies")]
        ) from None
    if document["templates"] or len(document["staticPolicies"]) != 1:
        raise _FaultyPolicy([_fault(source, statement, "it is a template: Coral fills in none")])
    (tree,) = document["staticPolicies"].values()
    policy = _described(source, statement, tree)
    result = cedarpy.validate_policies(statement.text, schema())
    if not result.validation_passed:
        # The same for every action that the policy covers, in no order.
        messages = sorted({_shortened(error.error) for error in result.errors})
        raise _FaultyPolicy([_fault(source, statement, message) for message in messages])
    return policy, tree


def _described(source: Source, statement: Statement, tree: dict[str, Any]) -> Policy:
    annotations = {str(name): str(value or "") for name, value in (tree.get("annotations") or {}).items()}
    wrong = ""
    for name, value in annotations.items():
        if name not in _ANNOTATIONS:
            known = ", ".join(f"@{one}" for one in _ANNOTATIONS)
            wrong = f"@{name} means nothing here: there are {known}"  # a misspelt @approval must not permit without one
        elif len(value) > _MAX_ANNOTATION or not value.isprintable():
            wrong = f"@{name} is longer than {_MAX_ANNOTATION} characters, or not printable"
    if "id" in annotations and not annotations["id"]:
        wrong = "@id is empty"
    attach_alone = tree["effect"] == "permit" and tree["action"] == _ATTACH
    if "approval" in annotations and not attach_alone:
        wrong = '@approval is for permits of action == Action::"AttachUprobe": what else they permit cannot be approved'
    if wrong:
        raise _FaultyPolicy([_fault(source, statement, wrong)])
    return Policy(
        policy_id=annotations.get("id", f"{source.name}:{statement.line}"),
        effect=str(tree["effect"]),
        source=source.name,
        line=statement.line,
        description=annotations.get("description", ""),
        approval=annotations.get("approval"),
    )


def _fault(source: Source, statement: Statement, message: str) -> Fault:
    return Fault(source=source.name, line=statement.line_of(message), message=printable(message))


def _shortened(message: str) -> str:
    """Cedar's message without the number that it gave a policy which it was shown alone, and without the action."""
    return _FOR_ACTION.sub("", message.removeprefix("for policy `policy0`, "))


@functools.cache
def _roles() -> cedarpy.Entities:
    return cedarpy.Entities.from_json_str(role_entities(), schema())


def _packaged(name: str) -> str:
    return resources.files("coral.trust.policy").joinpath(name).read_text(encoding="utf-8")
