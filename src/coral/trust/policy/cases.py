"""What a set of policies is meant to say, as cases in a YAML file, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coral.model.errors import InvalidArgument
from coral.model.principal import Kind, Principal, Role
from coral.model.text import printable
from coral.trust.policy.policies import Decision, Policies
from coral.trust.policy.question import Circumstances, Question, Target

MAX_CASES = 10_000
Expectation = Literal["allow", "deny", "approval"]
Text = Annotated[str, Field(max_length=4096)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Who(_Form):
    name: Text
    roles: tuple[Role, ...] = ()
    groups: tuple[Text, ...] = ()


class _Resource(_Form):
    service: Text
    environment: Text = ""
    labels: Mapping[str, Text] = {}


class _Context(_Form):
    function: Text = ""
    duration_s: int = Field(default=0, ge=0, le=1 << 40)
    capture_values: bool = False
    mode: Text = ""
    agent: Text = ""
    owner: Text = ""
    reason: Text = ""
    address: Text = ""
    time: datetime | None = None


class Case(_Form):
    """One question, and what is to be answered. Names are those of the schema.

    Attributes:
        name: What it is about; may be empty.
        principal: Who asks.
        action: What is asked for.
        resource: The service; None for the colony.
        context: The rest; what is left out is empty, the time is now.
        expect: What is to come of it.
        policy: The ``@id`` of a policy that has to be among those that decide; may be empty.
    """

    name: Text = ""
    principal: _Who
    action: Text
    resource: _Resource | None = None
    context: _Context = _Context()
    expect: Expectation
    policy: Text = ""


class Cases(_Form):
    """A file of cases.

    Attributes:
        policies: Files of policies, beside the default ones; relative to this file.
        cases: In order.
    """

    policies: tuple[str, ...] = ()
    cases: tuple[Case, ...] = Field(max_length=MAX_CASES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a case came out.

    Attributes:
        case: The case.
        decision: What the policies say.
        got: The same in the word that a case expects.
    """

    case: Case
    decision: Decision
    got: Expectation

    @property
    def right(self) -> bool:
        """Whether that is what was expected."""
        wanted = self.case.policy
        return self.got == self.case.expect and (not wanted or wanted in {one.policy_id for one in self.decision.policies})


def read_cases(path: Path, text: str) -> Cases:
    """The cases of a file.

    Args:
        path: Its name, for messages.
        text: What it holds.

    Raises:
        InvalidArgument: It is not YAML, or not of this form.
    """
    try:
        return Cases.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError) as error:
        why = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else "it is nested too deeply"
        raise InvalidArgument(f"{printable(str(path))} is not YAML: {printable(why)}.", hint="Correct it there.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        raise InvalidArgument(
            f"{printable(where) or 'The document'} in {printable(str(path))} is wrong: {printable(first['msg'])}.",
            hint="docs/policies.md shows a file of cases.",
        ) from None


def try_case(policies: Policies, case: Case, *, now_ns: int) -> Verdict:
    """Asks what a case asks."""
    decision = policies.decide(question_of(case, now_ns=now_ns))
    got: Expectation = "deny" if not decision.allowed else "approval" if decision.approval is not None else "allow"
    return Verdict(case=case, decision=decision, got=got)


def question_of(case: Case, *, now_ns: int) -> Question:
    """What a case asks."""
    who, told, resource = case.principal, case.context, case.resource
    at_ns = now_ns
    if told.time is not None:
        moment = told.time if told.time.tzinfo else told.time.replace(tzinfo=UTC)
        at_ns = int(moment.timestamp()) * 1_000_000_000
    return Question(
        principal=Principal(name=who.name, kind=Kind.USER, roles=who.roles, groups=who.groups, address=told.address),
        action=case.action,
        at_ns=at_ns,
        target=None
        if resource is None
        else Target(
            name=resource.service,
            environment=resource.environment or resource.labels.get("env", ""),
            labels=resource.labels,
        ),
        circumstances=Circumstances(**told.model_dump(exclude={"address", "time"})),
    )
