"""What users may do in a colony with credentials is what its policies say, through the whole of its door."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.asynchronous import asynchronous
from support.member_agent import MemberAgent
from support.running_colony import attach_request, eventually, running_colony
from support.secured_colony import SecuredColony, secured_colony

from coral.client.colony import ColonyClient
from coral.client.policy import PolicyClient
from coral.colony.progress import Progress
from coral.colony.store.collectors import CollectorRow, put_collectors
from coral.colony.store.control import insert_session
from coral.colony.store.database import Database
from coral.colony.store.events import Commit, commit_events
from coral.colony.store.schema import CONTROL, EVENTS
from coral.colony.values import LABEL, WITHHELD
from coral.events.batch import SCHEMA, decode, rows
from coral.model.errors import CoralError, InvalidArgument, PermissionDenied, Unavailable
from coral.model.session import Collector, ReasonCode, Session, Status
from coral.wire._generated.colony.v1 import debug_pb2, policy_pb2, registry_pb2

PROD = """
@id("prod-four-eyes")
@approval("production needs a second pair of eyes")
permit (principal in Role::"operator", action == Action::"AttachUprobe", resource)
when { resource.environment == "prod" };

@id("leads-approve")
permit (principal == User::"lea", action == Action::"ApproveAttach", resource);

@id("payments-are-secret")
@description("Payments are nobody's business.")
forbid (principal, action, resource == Service::"payments") unless { principal in Role::"admin" };
"""
SESSION_ID = "01JDC0000000000000000000AA"
SECRET = "4929 1234 5678 9012"


def policies(folder: Path, text: str = PROD) -> str:
    """A folder with those policies."""
    folder.mkdir(exist_ok=True)
    (folder / "prod.cedar").write_text(text)
    return str(folder)


async def attach(colony: SecuredColony, token: str, service: str = "checkout", **fields: Any) -> CoralError:
    """What an attach of somebody with that token comes to: there is no host, so at best UNAVAILABLE."""
    async with ColonyClient(colony.endpoint(token)) as client:
        with pytest.raises(CoralError) as caught:
            await client.attach(attach_request(service=service, **fields))
    return caught.value


async def audited(colony: SecuredColony, admin: str) -> list[tuple[str, ...]]:
    """Who did what, and how it was decided."""
    async with ColonyClient(colony.endpoint(admin)) as client:
        found, _ = await client.query_database(
            "SELECT principal, action, service_name, decision, outcome FROM audit_log "
            "WHERE action NOT IN ('AuditCheckpoint', 'QueryDatabase') ORDER BY sequence"
        )
    return [tuple(row.values()) for row in found.to_pylist()]


@asynchronous
async def test_roles_attach_as_documented(tmp_path: Path) -> None:
    """A viewer is refused with the action and the role that would do; an operator gets as far as the hosts."""
    async with secured_colony(tmp_path / "state") as colony:
        refused = await attach(colony, await colony.token("vic", "viewer"))
        operator = await colony.token("ann", "operator")
        admitted = await attach(colony, operator)
        capture = await attach(colony, operator, config={"capture_args": True})
        condition = await attach(colony, operator, filter={"condition": "amount > 100"})
        investigator = await attach(colony, await colony.token("ida", "investigator"), config={"capture_args": True})
    assert str(refused) == (
        "No policy permits vic (viewer) to do AttachUprobe on service 'checkout'. The role operator may: ask for a token "
        "with it (`coral token create NAME --role operator`)."
    )
    assert (refused.code, refused.details) == ("PERMISSION_DENIED", {"action": "AttachUprobe"})
    assert isinstance(admitted, Unavailable)
    assert [error.code for error in (capture, condition)] == ["PERMISSION_DENIED"] * 2
    assert "The role investigator may" in str(capture)
    assert investigator.code != "PERMISSION_DENIED"


@asynchronous
async def test_policies_speak_of_services_by_their_labels(tmp_path: Path) -> None:
    """A folder's policies count beside the default ones, and again as soon as they are written."""
    folder = policies(tmp_path / "policies")
    labels = {"web": {"env": "staging"}}
    async with secured_colony(tmp_path / "state", policy_dir=folder, environment="prod", labels=labels) as colony:
        ann, adm = await colony.token("ann", "operator"), await colony.token("adm", "admin")
        staging = await attach(colony, ann, "web")
        prod = await attach(colony, ann, "checkout")
        forbidden = await attach(colony, ann, "payments")
        policies(tmp_path / "policies", "")
        async with PolicyClient(colony.endpoint(adm)) as client:
            await client.check()  # looks at once; the colony does so every second
        afterwards = await attach(colony, ann, "payments")
    assert isinstance(staging, Unavailable)
    assert (prod.code, prod.details["policy"]) == ("PERMISSION_DENIED", "prod-four-eyes")
    assert str(forbidden) == (
        "ann (operator) may not do AttachUprobe on service 'payments': policy 'payments-are-secret' (prod.cedar:10) forbids "
        "it: Payments are nobody's business. Ask who keeps the policies."
    )
    assert isinstance(afterwards, Unavailable)


@asynchronous
async def test_an_approval_from_request_to_use(tmp_path: Path) -> None:
    """Asked for, refused to the wrong ones, given by the right one, used once; all of it audited; restarts change nothing.

    An attach that fails does not use it up; of two that are tried at once one gets it.
    """
    state, settings = tmp_path / "state", {"policy_dir": policies(tmp_path / "policies"), "environment": "prod"}
    async with secured_colony(state, **settings) as colony:
        ann, lea = await colony.token("ann", "operator"), await colony.token("lea", "operator")
        adm, bob = await colony.token("adm", "admin"), await colony.token("bob", "operator")
        approval_id = (await attach(colony, ann, reason="slow")).details["approval_id"]
        for other in (ann, bob):
            async with PolicyClient(colony.endpoint(other)) as client:
                with pytest.raises(PermissionDenied, match="ApproveAttach"):
                    await client.decide(approval_id, approve=True, reason="")
    async with secured_colony(state, **settings) as colony, PolicyClient(colony.endpoint(lea)) as client:
        (waiting,) = await client.approvals(everything=False)
        assert (waiting.approval_id, waiting.state, waiting.reason) == (approval_id, "pending", "slow")
        approved = await client.decide(approval_id, approve=True, reason="go on")
        assert (approved.state, approved.decided_by) == ("approved", "lea")
    async with secured_colony(state, **settings) as colony:
        failed = await attach(colony, ann, reason="slow")
        log = await audited(colony, adm)
        agent = await MemberAgent.join(colony.endpoint(adm), tmp_path / "a", "a")
        async with agent, ColonyClient(colony.endpoint(ann)) as client:
            await agent.report()
            await eventually(client.services)
            request = attach_request(reason="slow")
            tried = await asyncio.gather(client.attach(request), client.attach(request), return_exceptions=True)
        (again,) = (outcome for outcome in tried if isinstance(outcome, CoralError))
    assert isinstance(failed, Unavailable)  # there is no host; the door let it through
    assert again.details["approval_id"] != approval_id
    assert len(agent.collectors) == 1
    about = "checkout"
    assert log == [
        ("ann", "RequestApproval", about, "allow", "started"),
        ("ann", "RequestApproval", about, "allow", "ok"),
        ("ann", "AttachUprobe", about, "deny", "PERMISSION_DENIED"),
        ("ann", "DecideApproval", about, "deny", "PERMISSION_DENIED"),
        ("bob", "DecideApproval", about, "deny", "PERMISSION_DENIED"),
        ("lea", "ListApprovals", "", "allow", "started"),
        ("lea", "ListApprovals", "", "allow", "ok"),
        ("lea", "DecideApproval", about, "allow", "started"),
        ("lea", "DecideApproval", about, "allow", "ok"),
        ("ann", "UseApproval", about, "allow", "started"),
        ("ann", "UseApproval", about, "allow", "ok"),
        ("ann", "AttachUprobe", about, "error", "UNAVAILABLE"),
        ("ann", "ReturnApproval", about, "allow", "started"),
        ("ann", "ReturnApproval", about, "allow", "ok"),
    ]


@asynchronous
async def test_a_user_whose_token_is_for_other_services_approves_nothing(tmp_path: Path) -> None:
    """Neither sees the request nor decides it, whatever the policies say."""
    settings = {"policy_dir": policies(tmp_path / "policies"), "environment": "prod"}
    async with secured_colony(tmp_path / "state", **settings) as colony:
        approval_id = (await attach(colony, await colony.token("ann", "operator"))).details["approval_id"]
        async with PolicyClient(await colony.user("lea", "admin", services=["web*"])) as client:
            assert await client.approvals(everything=True) == []
            with pytest.raises(PermissionDenied, match="the token is not good for it"):
                await client.decide(approval_id, approve=True, reason="")


async def session_with_values(state: Path) -> None:
    """A session that ended, with one call of which argument and return value were captured."""
    await asyncio.to_thread(state.mkdir, mode=0o700)
    control, events = Database(state / "control.duckdb", CONTROL), Database(state / "events.duckdb", EVENTS)
    session = Session(
        session_id=SESSION_ID,
        service_name="checkout",
        function_name="main.Pay",
        agent_id="a",
        started_at_ns=1_795_000_000_000_000_000,
        expires_at_ns=1_795_000_060_000_000_000,
        status=Status.DETACHED,
        requested_by="ida",
    )
    event = {
        "timestamp_ns": 1_795_000_001_000_000_000,
        "collector_id": "c",
        "agent_id": "a",
        "service_name": "checkout",
        "function_name": "main.Pay",
        "event_type": "return",
        "duration_ns": 5,
        "pid": 1,
        "tid": 1,
        "args": [{"name": "card", "type": "string", "value": SECRET}],
        "return_value": {"type": "error", "value": SECRET, "is_error": True, "error_message": SECRET},
        "labels": [],
        "sequence": 1,
    }
    progress = Progress(collector_id="c", session_id=SESSION_ID, last_sequence=1, stored=1, status=Status.DETACHED)
    table = pa.Table.from_pylist([event], SCHEMA)
    for database in (control, events):
        await database.open()
    collector = Collector(collector_id="c", agent_id="a", status=Status.DETACHED, reason_code=ReasonCode.USER)
    await control.write(lambda connection: insert_session(connection, session, b""))
    row = CollectorRow(session_id=SESSION_ID, boot_id="boot", collector=collector)
    await control.write(lambda connection: put_collectors(connection, [row]))
    commit = Commit(events={SESSION_ID: table}, new=[progress], moved=[], slowest={SESSION_ID: list(rows(table))})
    await events.write(lambda connection: commit_events(connection, commit))
    for database in (control, events):
        await database.close()


@asynchronous
async def test_captured_values_are_for_investigators(tmp_path: Path) -> None:
    """A viewer and an operator get the same events without values, by query, results and follower, and no SQL at all."""
    await session_with_values(tmp_path / "state")
    async with secured_colony(tmp_path / "state") as colony:
        seen = {}
        for role in ("viewer", "operator", "investigator", "admin"):
            async with ColonyClient(await colony.user(f"{role}-1", role)) as client:
                page = await client.query_events(debug_pb2.QueryUprobeEventsRequest(session_id=SESSION_ID))
                results = await client.results(SESSION_ID)
                batches = [batch async for batch in client.follow(SESSION_ID, after={}, timeout_s=10)]
                followed = [row for batch in batches for row in rows(decode(batch.arrow_ipc))]
                texts = [str(page.events), str(results.slow_outliers), str(followed)]
                withheld = [
                    page.events[0].labels.get(LABEL), results.slow_outliers[0].event.labels.get(LABEL),
                    followed[0]["labels"].get(LABEL),
                ]  # fmt: skip
                try:
                    table, _ = await client.query_database("SELECT args FROM uprobe_events")
                    texts.append(str(table.to_pylist()))
                except PermissionDenied as error:
                    texts.append(error.details["action"])
                assert [one.duration_ns for one in page.events] == [row["duration_ns"] for row in followed] == [5]
            seen[role] = ([SECRET in text for text in texts], set(withheld))
    assert seen == {
        "viewer": ([False] * 4, {WITHHELD}),
        "operator": ([False] * 4, {WITHHELD}),
        "investigator": ([True] * 4, {None}),
        "admin": ([True] * 4, {None}),
    }


@asynchronous
async def test_lists_leave_out_what_policies_forbid_to_be_listed(tmp_path: Path) -> None:
    """A session of a service that is not one's business is not in the list, nor its service; page by page."""
    await session_with_values(tmp_path / "state")
    text = """
    forbid (principal, action in Action::"Look", resource == Service::"checkout") unless { principal == User::"ida" };
    """
    async with secured_colony(tmp_path / "state", policy_dir=policies(tmp_path / "policies", text)) as colony:
        async with ColonyClient(colony.agent_endpoint(await colony.join("a"))) as agent:
            services = [registry_pb2.ServiceInfo(name=name, instances=1, rule="argv0") for name in ("checkout", "web")]
            request = registry_pb2.RegisterAgentRequest(agent_id="a", address="127.0.0.1:1", boot_id="b", services=services)
            await agent.register(request)
        seen = {}
        for name in ("ida", "ann"):
            async with ColonyClient(await colony.user(name, "operator")) as client:
                sessions = [session.session_id async for session in client.sessions()]
                seen[name] = (sessions, [service.name for service in await client.services()])
                if name == "ann":
                    with pytest.raises(PermissionDenied):
                        await client.session(SESSION_ID)
    assert seen == {"ida": ([SESSION_ID], ["checkout", "web"]), "ann": ([], ["web"])}


@asynchronous
async def test_a_follower_is_let_go_when_policies_change(tmp_path: Path) -> None:
    """With the first batch that they do not let it have; what is said names the action."""
    folder = policies(tmp_path / "policies", "")
    async with secured_colony(tmp_path / "state", policy_dir=folder) as colony:
        agent = await MemberAgent.join(await colony.user("adm", "admin"), tmp_path / "a", "a")
        async with agent, ColonyClient(await colony.user("ann", "operator")) as client:
            await agent.report()
            await eventually(client.services)
            session_id = (await client.attach(attach_request())).session_id
            batches = client.follow(session_id, after={}, timeout_s=20)
            await anext(batches)
            policies(tmp_path / "policies", 'forbid (principal == User::"ann", action in Action::"Look", resource);')
            async with PolicyClient(colony.endpoint(await colony.token("bob", "admin"))) as admin:
                await admin.check()  # looks at once
            agent.only.emit([5])
            with pytest.raises(PermissionDenied, match="any more: the policies changed") as caught:
                async for _ in batches:
                    pass
    assert caught.value.details == {"action": "FollowUprobeEvents"}


@asynchronous
async def test_explanations(tmp_path: Path) -> None:
    """Everybody may ask about themselves; about others and about other roles, admins. Nothing is done by asking."""
    settings = {"policy_dir": policies(tmp_path / "policies"), "environment": "prod"}
    request = policy_pb2.ExplainPolicyRequest(action="AttachUprobe", service_name="checkout")
    async with secured_colony(tmp_path / "state", **settings) as colony:
        async with PolicyClient(await colony.user("ann", "operator")) as client:
            own = await client.explain_policy(request)
            assert await client.approvals(everything=True) == []
            for asked in ({"principal": "bob"}, {"roles": ["admin"]}, {"groups": ["sre"]}):
                with pytest.raises(PermissionDenied, match="ExplainPolicy"):
                    await client.explain_policy(
                        policy_pb2.ExplainPolicyRequest(action="AttachUprobe", service_name="x", **asked)
                    )
            with pytest.raises(InvalidArgument, match="no action that policies decide about"):
                await client.explain_policy(policy_pb2.ExplainPolicyRequest(action="AttachUprob"))
            for seconds in (-1, 1 << 40):
                long = policy_pb2.ExplainPolicyRequest(
                    action="AttachUprobe", service_name="x", duration=Duration(seconds=seconds)
                )
                with pytest.raises(InvalidArgument, match="duration is negative, or longer"):
                    await client.explain_policy(long)
            with pytest.raises(InvalidArgument, match="service_name is empty"):
                await client.explain_policy(policy_pb2.ExplainPolicyRequest(action="AttachUprobe"))
        async with PolicyClient(await colony.user("adm", "admin")) as client:
            of_ann = await client.explain_policy(
                policy_pb2.ExplainPolicyRequest(principal="ann", action="AttachUprobe", service_name="payments")
            )
            what_if = await client.explain_policy(
                policy_pb2.ExplainPolicyRequest(principal="new", roles=["viewer"], action="QueryDatabase")
            )
            with pytest.raises(InvalidArgument, match="It is not known which roles nobody has"):
                await client.explain_policy(policy_pb2.ExplainPolicyRequest(principal="nobody", action="ListAgents"))
    assert (own.decision, [policy.policy_id for policy in own.policies], own.role) == (
        "approval",
        ["operators-attach", "prod-four-eyes"],
        "operator",
    )
    assert (of_ann.decision, [policy.policy_id for policy in of_ann.policies], of_ann.role) == (
        "deny",
        ["payments-are-secret"],
        "admin",
    )
    assert (what_if.decision, what_if.text) == (
        "deny",
        "No policy permits new (viewer) to do QueryDatabase. The role investigator may: ask for a token with it "
        "(`coral token create NAME --role investigator`).",
    )


@asynchronous
async def test_without_credentials_policies_are_not_asked(tmp_path: Path) -> None:
    """Everybody may do everything there; what policies would say can be asked all the same."""
    async with running_colony(tmp_path / "state") as address, PolicyClient(address) as client:
        found = await client.check()
        request = policy_pb2.ExplainPolicyRequest(action="QueryDatabase", principal="ann", roles=["operator"])
        explained = await client.explain_policy(request)
        assert (found.enforced, explained.decision, explained.role) == (False, "deny", "investigator")
        assert await client.approvals(everything=True) == []
        await client.query_database("SELECT 1")


@asynchronous
async def test_what_is_in_force_is_for_admins_to_see(tmp_path: Path) -> None:
    """With the faults of what is in the folder now, which is not in force; the health service says so to everybody."""
    folder = policies(tmp_path / "policies")
    async with secured_colony(tmp_path / "state", policy_dir=folder) as colony:
        async with PolicyClient(await colony.user("vic", "viewer")) as client:
            with pytest.raises(PermissionDenied, match="CheckPolicies"):
                await client.check()
        async with PolicyClient(await colony.user("adm", "admin")) as client:
            before = await client.check()
            policies(tmp_path / "policies", PROD + "permit (principal, actoin, resource);")
            after = await client.check()
            health = health_pb2_grpc.HealthStub(client.channel)
            asked = health_pb2.HealthCheckRequest(service="coral.policies")
            async with asyncio.timeout(5):
                while (await health.Check(asked)).status != health_pb2.HealthCheckResponse.NOT_SERVING:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
    assert [policy.policy_id for policy in before.policies][-3:] == ["prod-four-eyes", "leads-approve", "payments-are-secret"]
    assert (before.folder, before.enforced, list(before.faults)) == (folder, True, [])
    assert list(after.policies) == list(before.policies)
    assert list(after.faults) == ["prod.cedar:13: found an invalid variable in the policy scope: actoin"]
