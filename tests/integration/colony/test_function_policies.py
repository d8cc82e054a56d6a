"""Policies about functions hold whatever those are called: they are asked about what agents found, before it is attached."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.asynchronous import asynchronous
from support.member_agent import MemberAgent
from support.running_colony import attach_request, eventually, table
from support.secured_colony import secured_colony

from coral.client.colony import ColonyClient
from coral.client.policy import PolicyClient
from coral.model.errors import FailedPrecondition, PermissionDenied
from coral.model.resolved import ResolvedFunction
from coral.wire._generated.colony.v1 import inspect_pb2 as colony_inspect
from coral.wire._generated.colony.v1 import policy_pb2
from coral.wire._generated.mesh.v1 import inspect_pb2, inspect_pb2_grpc
from coral.wire.inspect_convert import resolved_to

BAN = """
@id("no-secrets")
forbid (principal, action == Action::"AttachUprobe", resource) when { context.function like "*Secret*" };
"""
PAY = ResolvedFunction(name="main.Pay", file="checkout", called=(("main.Pay",),))
FOLDED = ResolvedFunction(name="main.Pay", file="checkout", called=(("main.Pay",), ("main.Secret",)))


class Names(inspect_pb2_grpc.InspectServiceServicer):
    """What a host says that functions are called.

    Attributes:
        found: The answer to every question.
        asked: The names that were asked about.
    """

    def __init__(self) -> None:
        self.found = [PAY]
        self.asked: list[str] = []

    async def ResolveFunction(
        self, request: inspect_pb2.ResolveFunctionRequest, context: Any
    ) -> inspect_pb2.ResolveFunctionResponse:
        """That."""
        self.asked.append(request.function_name)
        return inspect_pb2.ResolveFunctionResponse(functions=map(resolved_to, self.found))

    async def ListImages(self, request: inspect_pb2.ListImagesRequest, context: Any) -> inspect_pb2.ListImagesResponse:
        """One."""
        return inspect_pb2.ListImagesResponse(images=[inspect_pb2.Image(image_id="A", path="/usr/bin/checkout", instances=1)])

    async def ListFunctions(
        self, request: inspect_pb2.ListFunctionsRequest, context: Any
    ) -> inspect_pb2.ListFunctionsResponse:
        """Two functions of that."""
        names = ["main.Pay", "main.Secret"]
        verdicts = [inspect_pb2.Verdict(probeable="yes", exact=True)]
        table = inspect_pb2.FunctionTable(
            name=names, demangled=["", ""], language=[0, 0], verdict=[0, 0], languages=["go"], verdicts=verdicts
        )
        return inspect_pb2.ListFunctionsResponse(functions=table, matches=2)


@asynccontextmanager
async def scene(
    folder: Path, text: str, names: Names | None
) -> AsyncIterator[tuple[ColonyClient, ColonyClient, MemberAgent, PolicyClient]]:
    """A colony with such a policy and one host: an operator, an admin, the host's agent, and the operator asking policies."""
    (folder / "policies").mkdir()
    (folder / "policies/own.cedar").write_text(text)
    async with secured_colony(folder / "state", policy_dir=str(folder / "policies")) as colony:
        admin = await colony.user("adm", "admin")
        agent = await MemberAgent.join(admin, folder / "a", "a")
        if names is not None:
            agent.more_services.append(lambda server: inspect_pb2_grpc.add_InspectServiceServicer_to_server(names, server))
        user = await colony.user("ann", "operator")
        async with agent, ColonyClient(user) as ann, ColonyClient(admin) as adm, PolicyClient(user) as ask:
            await agent.report()
            await eventually(ann.services)
            yield ann, adm, agent, ask


AUDITED = (
    "SELECT function_name, decision, outcome FROM audit_log "
    "WHERE action = 'AttachUprobe' AND decision = 'deny' ORDER BY sequence"
)


@asynchronous
async def test_a_ban_on_one_name_bans_the_code(tmp_path: Path) -> None:
    """Nothing is asked of the agent but the names; the refusal and the audit log say which name it was."""
    names = Names()
    names.found = [PAY, FOLDED]
    async with scene(tmp_path, BAN, names) as (ann, adm, agent, _):
        with pytest.raises(PermissionDenied, match=r"It is about 'main\.Secret', which 'Pay' stands for") as caught:
            await ann.attach(attach_request(function="Pay"))
        assert caught.value.details == {"action": "AttachUprobe", "policy": "no-secrets", "function": "main.Secret"}
        assert (names.asked, agent.started, [session async for session in ann.sessions()]) == (["Pay"], [], [])
        assert await table(adm, AUDITED) == [
            {"function_name": "Pay (main.Secret)", "decision": "deny", "outcome": "PERMISSION_DENIED"}
        ]


@asynchronous
async def test_what_was_permitted_is_what_is_attached(tmp_path: Path) -> None:
    """The agent is told which function was decided about; what processes have that come later is decided about then."""
    names = Names()
    async with scene(tmp_path, BAN, names) as (ann, adm, agent, _):
        await ann.attach(attach_request(function="Pay"))
        (started,) = agent.started
        assert list(started.authorised.marks) == [PAY.mark]
        newer = ResolvedFunction(name="main.Pay", file="checkout-2", called=(("main.Pay",),))
        names.found = [PAY, newer, FOLDED]
        agent.only.unauthorised = True
        (denied,) = await eventually(lambda: table(adm, AUDITED))
        assert denied["function_name"] == "checkout!main.Pay, checkout-2!main.Pay"
        assert len(agent.started) == 1
        names.found = [PAY, ResolvedFunction(name="main.Pay", file="checkout-3", called=(("main.Pay",),))]
        (_, again) = await eventually(lambda: _when(len(agent.started) == 2, agent.started))
        assert set(again.authorised.marks) == {one.mark for one in names.found}
        assert again.session_id == started.session_id


async def _when(condition: bool, value: Any) -> Any:
    return value if condition else None


@asynchronous
async def test_agents_are_asked_only_where_policies_speak_of_functions(tmp_path: Path) -> None:
    """With others an attach is what it was; what a caller claims to be permitted counts for nothing."""
    names = Names()
    async with scene(tmp_path, BAN.replace("context.function like", "context.reason like"), names) as (ann, _, agent, _):
        request = attach_request(function="Pay")
        request.authorised.marks.append(FOLDED.mark)
        await ann.attach(request)
        (started,) = agent.started
        assert (names.asked, started.HasField("authorised")) == ([], False)


@asynchronous
async def test_an_agent_that_cannot_tell_names_attaches_nothing(tmp_path: Path) -> None:
    """An older one would attach whatever the name stands for."""
    async with scene(tmp_path, BAN, None) as (ann, _, agent, _):
        with pytest.raises(FailedPrecondition, match="cannot tell what functions are called"):
            await ann.attach(attach_request(function="Pay"))
        assert agent.started == []


@asynchronous
async def test_the_names_are_explained_and_listed(tmp_path: Path) -> None:
    """``policy explain`` decides by them and tells them; a list says which functions are not for the caller."""
    names = Names()
    names.found = [FOLDED]
    async with scene(tmp_path, BAN, names) as (ann, _, _, ask):
        request = policy_pb2.ExplainPolicyRequest(action="AttachUprobe", service_name="checkout", function_name="Pay")
        found = await ask.explain_policy(request)
        assert (found.decision, [policy.policy_id for policy in found.policies]) == ("deny", ["no-secrets"])
        assert list(found.names) == ["main.Pay", "main.Secret"]
        listed = await ann.functions(colony_inspect.ListFunctionsRequest(service_name="checkout"))
        functions = listed.images[0].functions
        verdicts = {
            name: (functions.verdicts[at].probeable, functions.verdicts[at].reason)
            for name, at in zip(functions.name, functions.verdict, strict=True)
        }
        reason = "is not for ann: policy 'no-secrets' (own.cedar:2) forbids it"
        assert verdicts == {"main.Pay": ("yes", ""), "main.Secret": ("no", reason)}
