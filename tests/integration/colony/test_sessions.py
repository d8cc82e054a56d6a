"""Sessions of a real colony over real files, with agents that exist in the test only."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest
from support.running_colony import attach_request, ended, eventually, running_colony, stored, table
from support.synthetic_agent import SyntheticAgent

from coral.client.colony import ColonyClient
from coral.model.errors import (
    AmbiguousName,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from coral.wire import convert
from coral.wire._generated.colony.v1 import debug_pb2, debug_pb2_grpc


def test_one_session_from_attach_to_deadline(tmp_path: Path) -> None:
    """A session is active when attach returns, stores every event once, and ends at its deadline with a balanced ledger."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            before_ns = time.time_ns()
            attached = await client.attach(attach_request(seconds=1.2))
            assert (attached.success, attached.error) == (True, "")
            running = await client.session(attached.session_id)
            assert (running.status, running.agent_id, running.service_name) == ("active", "agent-1", "checkout")
            duration_ns = convert.timestamp_ns(running.expires_at) - convert.timestamp_ns(running.started_at)
            assert duration_ns == 1_200_000_000
            assert convert.timestamp_ns(running.started_at) >= before_ns // 1000 * 1000
            for start in range(0, 3000, 500):
                agent.only.emit(range(start + 1, start + 501))
            session = await ended(client, attached.session_id)
            assert (session.status, session.reason_code, session.reason) == ("expired", "deadline", "The time was up.")
            late_ns = convert.timestamp_ns(session.ended_at) - convert.timestamp_ns(session.expires_at)
            assert 0 <= late_ns < 1_000_000_000
            ledger = convert.ledger_from(session.ledger, final=True)
            assert (ledger.entered, ledger.returned, ledger.emitted, ledger.stored) == (3000, 3000, 3000, 3000)
            assert session.ledger.balanced
            rows = await table(
                client, "SELECT count(*) AS n, count(DISTINCT sequence) AS d, sum(duration_ns) AS s FROM uprobe_events"
            )
            assert rows == [{"n": 3000, "d": 3000, "s": sum(range(1, 3001))}]
            (collector,) = session.collectors
            assert (collector.status, [one.status for one in collector.instances]) == ("expired", ["detached"])

    asyncio.run(run())


def test_detach(tmp_path: Path) -> None:
    """Detaching ends the session with its final ledger; once more changes nothing; an unknown id is NOT_FOUND."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            agent.only.emit([5, 6, 7])
            assert (await client.detach(session_id)).success
            session = await client.session(session_id)
            assert (session.status, session.reason_code, session.ledger.stored) == ("detached", "user", 3)
            assert session.ledger.balanced
            assert session.reason.startswith("It was detached by ")
            assert (await client.detach(session_id)).success
            assert await client.session(session_id) == session
            with pytest.raises(NotFound, match="no session"):
                await client.detach("01AAAAAAAAAAAAAAAAAAAAAAAA")

    asyncio.run(run())


def test_results(tmp_path: Path) -> None:
    """Statistics come from every event, the slowest calls are whole events, and both are the same once it has ended."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            durations = [1000 * number for number in range(1, 1001)]
            agent.only.emit(durations[:400])
            agent.only.emit(durations[400:])
            await stored(client, session_id, 1000)
            live = await client.results(session_id, form="full")
            await client.detach(session_id)
            past = await client.results(session_id, form="full")
            for found in (live, past):
                statistics = found.statistics
                assert statistics.total_calls == 1000
                for percentile, exact in ((50, 500_000), (95, 950_000), (99, 990_000)):
                    assert convert.duration_ns(getattr(statistics, f"duration_p{percentile}")) == pytest.approx(
                        exact, rel=0.01
                    )
                assert convert.duration_ns(statistics.duration_min) == 1000
                assert convert.duration_ns(statistics.duration_max) == 1_000_000
                assert convert.duration_ns(statistics.duration_sum) == sum(durations)
                assert convert.duration_ns(statistics.duration_mean) == 500_500
                assert statistics.calls_per_second > 0
                slowest = [outlier.event.duration_ns for outlier in found.slow_outliers]
                assert slowest == durations[:-11:-1]
                assert sum(found.histogram.count) == 1000
                assert found.slow_outliers[0].event.function_name == "main.Pay"
            assert not (await client.results(session_id)).histogram.count

    asyncio.run(run())


def test_several_agents(tmp_path: Path) -> None:
    """A session runs on every host of the service, and names the hosts where it failed; only these refuse if all do."""

    async def run() -> None:
        async with (
            SyntheticAgent("a") as first,
            SyntheticAgent("b") as second,
            SyntheticAgent("c", services=["other"]) as third,
            running_colony(tmp_path) as colony,
            ColonyClient(colony) as client,
        ):
            for agent in (first, second, third):
                await agent.report_to(colony)
            both = await client.session((await client.attach(attach_request())).session_id)
            assert (both.agent_id, sorted(one.agent_id for one in both.collectors)) == ("", ["a", "b"])
            assert not third.started
            second.refuse = FailedPrecondition("Cannot decode it.", hint="See why.")
            one = await client.attach(attach_request())
            assert (one.success, one.error) == (True, "b: Cannot decode it. See why.")
            assert (await client.session(one.session_id)).agent_id == "a"
            narrowed = await client.attach(attach_request("other", agent_id="c"))
            assert (await client.session(narrowed.session_id)).agent_id == "c"

    asyncio.run(run())


def test_hosts_that_come_later(tmp_path: Path) -> None:
    """A host that registers, or starts to see the service, while a session runs becomes part of it within a second, unless
    the session was narrowed; one that cannot be attached is tried again when its processes change.
    """

    async def run() -> None:
        async with (
            SyntheticAgent("a") as first,
            SyntheticAgent("b") as second,
            SyntheticAgent("c", services=["other"]) as third,
            running_colony(tmp_path) as colony,
            ColonyClient(colony) as client,
        ):
            await first.report_to(colony)
            wide = (await client.attach(attach_request())).session_id
            narrow = (await client.attach(attach_request(agent_id="a"))).session_id
            assert (await client.session(wide)).agent_id == "a"

            async def hosts(session_id: str) -> list[str]:
                return sorted(one.agent_id for one in (await client.session(session_id)).collectors)

            async def reached(*agent_ids: str) -> bool:
                return await hosts(wide) == list(agent_ids)

            third.refuse = NotFound("No such function.")
            await second.report_to(colony)
            await third.report_to(colony)
            await eventually(lambda: reached("a", "b"), within_s=1)
            third.services = ["checkout"]
            await eventually(lambda: _true(third.started), within_s=1)
            third.refuse = None
            third.services = ["checkout", "other"]
            await eventually(lambda: reached("a", "b", "c"), within_s=1)
            assert await hosts(narrow) == ["a"]
            for agent in (first, second, third):
                next(one for one in agent.collectors.values() if one.request.session_id == wide).emit([1000] * 5)
            await client.detach(wide)
            session = await ended(client, wide)
            assert (session.agent_id, session.status, session.ledger.stored, session.ledger.balanced) == (
                "",
                "detached",
                15,
                True,
            )
            assert len(third.started) == 2
            listed = await table(client, f"SELECT agent_id FROM debug_collectors WHERE session_id = '{wide}' ORDER BY ALL")
            assert [row["agent_id"] for row in listed] == ["a", "b", "c"]

    asyncio.run(run())


async def _true(value: object) -> bool:
    return bool(value)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ([NotFound("No f.", hint="Did you mean g?"), NotFound("No f.", hint="Did you mean h?")], NotFound),
        ([AmbiguousName("Two.", hint="a, b"), NotFound("No f.")], InvalidArgument),
        ([FailedPrecondition("Cannot."), NotFound("No f.")], FailedPrecondition),
        ([Unavailable("Busy."), Unavailable("Busy.")], Unavailable),
        ([ResourceExhausted("Full."), ResourceExhausted("Full.")], ResourceExhausted),
    ],
)
def test_refused_attach(tmp_path: Path, raised: list[Exception], expected: type[Exception]) -> None:
    """An attach that every agent refuses is refused with the most telling status; it leaves an audit row and no session."""

    async def run() -> None:
        async with (
            SyntheticAgent("a") as first,
            SyntheticAgent("b") as second,
            running_colony(tmp_path) as colony,
            ColonyClient(colony) as client,
        ):
            first.refuse, second.refuse = raised  # type: ignore[assignment]
            await first.report_to(colony)
            await second.report_to(colony)
            with pytest.raises(expected) as caught:
                await client.attach(attach_request(reason="slow checkout"))
            for error in raised:
                assert error.hint in caught.value.hint  # type: ignore[attr-defined]
            assert await table(client, "SELECT * FROM debug_sessions") == []
            rows = await table(
                client,
                "SELECT decision, outcome, reason, service_name FROM audit_log WHERE action = 'AttachUprobe' "
                "ORDER BY sequence",
            )
            assert rows == [
                {"decision": "allow", "outcome": "started", "reason": "slow checkout", "service_name": "checkout"},
                {"decision": "error", "outcome": expected.code, "reason": "slow checkout", "service_name": "checkout"},  # type: ignore[attr-defined]
            ]

    asyncio.run(run())


@pytest.mark.parametrize(
    "request_",
    [
        attach_request(seconds=601),
        attach_request(seconds=0),
        attach_request(seconds=-5),
        attach_request(service=""),
        attach_request(function="x" * 100_000),
        attach_request(function="a\x1bb"),
        attach_request(sdk_addr="10.0.0.1:80"),
        attach_request(agent_id="a\nb"),
    ],
)
def test_bad_requests(tmp_path: Path, request_: debug_pb2.AttachUprobeRequest) -> None:
    """What cannot be right is INVALID_ARGUMENT, is in the audit log, and reaches no agent."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            with pytest.raises(InvalidArgument):
                await client.attach(request_)
            assert not agent.started
            rows = await table(client, "SELECT decision, outcome FROM audit_log WHERE action = 'AttachUprobe'")
            assert rows == [{"decision": "error", "outcome": "INVALID_ARGUMENT"}]

    asyncio.run(run())


def test_nobody_to_ask(tmp_path: Path) -> None:
    """Without agents: UNAVAILABLE; an unknown agent is NOT_FOUND with the nearest name; an offline one UNAVAILABLE."""

    async def run() -> None:
        async with SyntheticAgent("agent-1") as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            with pytest.raises(Unavailable, match="No agent is online"):
                await client.attach(attach_request())
            await agent.report_to(colony)
            with pytest.raises(NotFound, match="Did you mean agent-1"):
                await client.attach(attach_request(agent_id="agent-2"))
            agent.refuse = NotFound("No service 'chekout' here.")
            with pytest.raises(NotFound, match="Did you mean checkout"):
                await client.attach(attach_request("chekout"))
            await agent.kill()

            async def offline() -> bool:
                return [one.status for one in await client.agents()] == ["offline"]

            await eventually(offline)
            with pytest.raises(Unavailable, match="is offline"):
                await client.attach(attach_request(agent_id="agent-1"))
            assert await client.services() == []

    asyncio.run(run())


def test_a_service_that_is_not_in_the_registry_yet(tmp_path: Path) -> None:
    """A process that started a moment ago is found by asking the agents; those without it are no failure."""

    async def run() -> None:
        async with (
            SyntheticAgent("a") as first,
            SyntheticAgent("b") as second,
            running_colony(tmp_path) as colony,
            ColonyClient(colony) as client,
        ):
            await first.report_to(colony)
            await second.report_to(colony)
            second.refuse = NotFound("No service 'new' here.")
            attached = await client.attach(attach_request("new"))
            assert (attached.success, attached.error) == (True, "")
            assert (await client.session(attached.session_id)).agent_id == "a"

    asyncio.run(run())


def test_pending_until_an_instance_is_attached(tmp_path: Path) -> None:
    """A session whose library no process has loaded is pending, and becomes active with the first attached instance."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            agent.attached = False
            await agent.report_to(colony)
            attached = await client.attach(attach_request(function="libz.so!inflate"))
            assert attached.success
            assert "becomes active" in attached.error
            assert (await client.session(attached.session_id)).status == "pending"
            agent.only.attached = True
            agent.only.status = "active"
            agent.only.ring()

            async def active() -> bool:
                return (await client.session(attached.session_id)).status == "active"

            await eventually(active)

    asyncio.run(run())


def test_max_events_ends_it_as_detached(tmp_path: Path) -> None:
    """When an agent ends its collector early, the session ends with the agent's status and reason."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            agent.only.emit([1] * 10)
            agent.only.end("detached", "max_events")
            session = await ended(client, session_id)
            assert (session.status, session.reason_code, session.event_count) == ("detached", "max_events", 10)

    asyncio.run(run())


def test_limit_of_sessions(tmp_path: Path) -> None:
    """Above the limit an attach is RESOURCE_EXHAUSTED and says who holds the slot; an ended session makes room."""

    async def run() -> None:
        async with (
            SyntheticAgent() as agent,
            running_colony(tmp_path, max_sessions=1, slot_wait_s=0.1) as colony,
            ColonyClient(colony, caller="ann@desk") as client,
        ):
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            with pytest.raises(ResourceExhausted) as refused:
                await client.attach(attach_request())
            assert f"{session_id} by ann@desk (main.Pay, ends within " in refused.value.message
            await client.detach(session_id)
            assert (await client.attach(attach_request())).success

    asyncio.run(run())


def test_a_filter_cannot_be_changed(tmp_path: Path) -> None:
    """UpdateProbeFilter says that it cannot, rather than pretend."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            async with grpc.aio.insecure_channel(colony) as channel:
                stub = debug_pb2_grpc.DebugServiceStub(channel)
                with pytest.raises(grpc.aio.AioRpcError, match="cannot be changed yet") as caught:
                    await stub.UpdateProbeFilter(debug_pb2.UpdateProbeFilterRequest(session_id=session_id))
                assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    asyncio.run(run())


def test_who_did_what(tmp_path: Path) -> None:
    """Every operation is a row that names who, from where, on which service and function, and how it ended."""

    async def run() -> None:
        async with (
            SyntheticAgent() as agent,
            running_colony(tmp_path) as colony,
            ColonyClient(colony, caller="ann@laptop") as client,
        ):
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request(reason="INC-7"))).session_id
            await client.results(session_id)
            await client.detach(session_id)
            with pytest.raises(NotFound):
                await client.results("nothing")
            rows = await table(
                client,
                "SELECT principal, action, service_name, function_name, session_id, agent_id, reason, decision, outcome "
                "FROM audit_log WHERE action <> 'QueryDatabase' AND outcome <> 'started' ORDER BY sequence",
            )
            on = {"service_name": "checkout", "function_name": "main.Pay", "session_id": session_id}
            ok = {"agent_id": "", "reason": "", "decision": "allow", "outcome": "ok"}
            assert rows == [
                {
                    "principal": "agent:agent-1", "action": "RegisterAgent", "service_name": "", "function_name": "",
                    "session_id": "", **ok, "agent_id": "agent-1", "reason": agent.address,
                },
                {"principal": "ann@laptop", "action": "AttachUprobe", **on, **ok, "agent_id": "agent-1", "reason": "INC-7"},
                {"principal": "ann@laptop", "action": "GetDebugResults", **on, **ok},
                {"principal": "ann@laptop", "action": "DetachUprobe", **on, **ok},
                {
                    "principal": "ann@laptop", "action": "GetDebugResults", "service_name": "", "function_name": "",
                    "session_id": "nothing", **ok, "decision": "error", "outcome": "NOT_FOUND",
                },
            ]  # fmt: skip
            addresses = await table(client, "SELECT DISTINCT split_part(address, ':', 1) AS host FROM audit_log")
            assert addresses == [{"host": "127.0.0.1"}]
            assert (await client.session(session_id)).requested_by == "ann@laptop"

    asyncio.run(run())


def test_reading_an_ended_session_is_logged_with_its_names(tmp_path: Path) -> None:
    """Rows name service and function also of sessions that have ended; a follower that goes away is CANCELLED."""

    async def run() -> None:
        async with (
            SyntheticAgent() as agent,
            running_colony(tmp_path) as colony,
            ColonyClient(colony, caller="ann@laptop") as client,
        ):
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            follower = client.follow(session_id, after={}, timeout_s=20)
            agent.only.emit([5])
            await anext(follower)
            await follower.aclose()
            await client.detach(session_id)
            await client.session(session_id)
            await client.results(session_id)
            await client.query_events(debug_pb2.QueryUprobeEventsRequest(session_id=session_id))
            async for _ in client.follow(session_id, after={}, timeout_s=20):
                pass
            with pytest.raises(NotFound):
                await anext(client.follow("nothing", after={}, timeout_s=20))
            rows = await table(
                client,
                "SELECT action, service_name, function_name, session_id, outcome FROM audit_log "
                "WHERE action NOT IN ('QueryDatabase', 'RegisterAgent') AND outcome <> 'started' ORDER BY sequence",
            )
        on = {"service_name": "checkout", "function_name": "main.Pay", "session_id": session_id, "outcome": "ok"}
        assert rows == [
            {"action": "AttachUprobe", **on},
            {"action": "FollowUprobeEvents", **on, "outcome": "CANCELLED"},
            *({"action": action, **on} for action in (
                "DetachUprobe", "ListDebugSessions", "GetDebugResults", "QueryUprobeEvents", "FollowUprobeEvents",
            )),
            {
                "action": "FollowUprobeEvents", "service_name": "", "function_name": "", "session_id": "nothing",
                "outcome": "NOT_FOUND",
            },
        ]  # fmt: skip

    asyncio.run(run())


def test_a_caller_that_goes_away_leaves_nothing_running(tmp_path: Path) -> None:
    """An attach whose caller gives up before the answer is undone."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            hold = asyncio.Event()
            agent.before_start = hold
            attaching = asyncio.create_task(client.attach(attach_request()))

            async def pending() -> bool:
                return [one.status async for one in client.sessions()] == ["pending"]

            await eventually(pending)
            attaching.cancel()
            await asyncio.wait({attaching})
            hold.set()

            async def gone() -> bool:
                return [one.status async for one in client.sessions()] == ["detached"]

            await eventually(gone)
            assert agent.only.ended

    asyncio.run(run())
