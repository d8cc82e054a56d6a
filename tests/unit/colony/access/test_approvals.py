"""An approval is somebody else's, for exactly one request, once, and for a short time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.policies import NOW_NS, user
from support.running_colony import attach_request, eventually

from coral.colony.access.actions import ACTIONS, resource_of
from coral.colony.access.approvals import MAX_WAITING, Approvals
from coral.colony.audit import Audit
from coral.colony.store.approvals import Approval
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from coral.model.principal import Principal
from coral.trust.policy.policies import Policy
from coral.trust.policy.words import ApprovalRequired

ATTACH = ACTIONS["/coral.colony.v1.DebugService/AttachUprobe"]
POLICY = Policy(policy_id="prod", effect="permit", source="a.cedar", line=1, approval="production")
ANN, BOB = user("ann", "operator"), user("bob", "admin")
MINUTE_NS = 60_000_000_000


@dataclass(slots=True)
class Desk:
    """Approvals over a real database, and the hands of a clock."""

    approvals: Approvals
    database: Database
    now_ns: int = NOW_NS

    async def claim(self, who: Principal = ANN, policy: Policy = POLICY, **request: Any) -> Approval:
        """Tries to attach."""
        return await self.approvals.claim(who, ATTACH, resource_of(attach_request(**request)), policy)

    async def ask(self, who: Principal = ANN, **request: Any) -> str:
        """Tries to attach, and gives the id of the request for an approval."""
        with pytest.raises(ApprovalRequired) as caught:
            await self.claim(who, **request)
        return caught.value.details["approval_id"]

    async def audited(self, count: int) -> list[tuple[str, str, str, str]] | None:
        """What the audit log has, action, principal, reason and outcome, once it has so much."""
        await self.approvals._audit.flush()
        found = await self.database.read(
            lambda cursor: cursor.execute(
                "SELECT action, principal, reason, outcome FROM audit_log WHERE action <> 'AuditCheckpoint' ORDER BY sequence"
            ).fetchall()
        )
        return found if len(found) >= count else None


@asynccontextmanager
async def desk(path: Path | None = None) -> AsyncIterator[Desk]:
    """One in memory, or in a file."""
    database = Database(path, CONTROL)
    await database.open()
    audit = Audit(database)
    await audit.open()
    approvals = Approvals(database, audit, good_s=900, clock_ns=lambda: found.now_ns)
    found = Desk(approvals=approvals, database=database)
    await approvals.load()
    try:
        yield found
    finally:
        await audit.flush()
        await audit.close()
        await database.close()


def on_a_desk(scenario: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    """Runs a scenario."""

    async def run() -> None:
        async with desk() as found:
            await scenario(found)

    asyncio.run(run())


def test_the_first_try_asks_and_says_how_to_go_on() -> None:
    """It is refused with the request's id, the policy, and the commands; a second try asks for nothing new."""

    async def scenario(at: Desk) -> None:
        with pytest.raises(ApprovalRequired) as caught:
            await at.claim(reason="slow checkout")
        error = caught.value
        approval_id = error.details.pop("approval_id")
        assert error.code == "PERMISSION_DENIED"
        assert error.message == (
            f"Policy 'prod' lets ann do AttachUprobe on 'checkout' once somebody else has approved it (production). "
            f"Request {approval_id} waits until 11:21:40 UTC."
        )
        assert error.hint == f"Once it is approved (`coral approval approve {approval_id}`), run the same command again."
        assert error.details == {"action": "AttachUprobe", "policy": "prod", "expires_at": "2026-11-18T11:21:40+00:00"}
        assert await at.ask(reason="slow checkout") == approval_id
        (request,) = at.approvals.listed(everything=False)
        assert (request.requested_by, request.service_name, request.function_name, request.reason, request.state) == (
            "ann",
            "checkout",
            "main.Pay",
            "slow checkout",
            "pending",
        )
        assert '"service_name": "checkout"' in request.request

    on_a_desk(scenario)


def test_an_approval_is_good_once() -> None:
    """After it was used the same request has to be approved anew; everything is in the audit log, before it counts."""

    async def scenario(at: Desk) -> None:
        approval_id = await at.ask()
        await at.approvals.decide(approval_id, BOB, approve=True, comment="go on")
        used = await at.claim()
        assert (used.approval_id, used.state, used.decided_by, used.comment) == (approval_id, "used", "bob", "go on")
        again = await at.ask()
        assert again != approval_id
        assert await eventually(lambda: at.audited(6)) == [
            ("RequestApproval", "ann", f"{approval_id} for policy prod", "started"),
            ("RequestApproval", "ann", f"{approval_id} for policy prod", "ok"),
            ("UseApproval", "ann", f"{approval_id} approved by bob (go on)", "started"),
            ("UseApproval", "ann", f"{approval_id} approved by bob (go on)", "ok"),
            ("RequestApproval", "ann", f"{again} for policy prod", "started"),
            ("RequestApproval", "ann", f"{again} for policy prod", "ok"),
        ]

    on_a_desk(scenario)


def test_of_many_at_a_time_one_gets_through() -> None:
    """Ten tries of one approved request attach once."""

    async def scenario(at: Desk) -> None:
        await at.approvals.decide(await at.ask(), BOB, approve=True, comment="")
        outcomes = await asyncio.gather(*(at.claim() for _ in range(10)), return_exceptions=True)
        assert sorted(type(one).__name__ for one in outcomes) == ["Approval", *["ApprovalRequired"] * 9]

    on_a_desk(scenario)


OTHERS: tuple[dict[str, Any], ...] = (
    {"who": user("eve", "operator")},
    {"service": "payments"},
    {"function": "main.Refund"},
    {"seconds": 31.0},
    {"agent_id": "host-2"},
    {"reason": "another"},
    {"config": {"capture_args": True}},
    {"filter": {"max_events_per_second": 1}},
    {"policy": replace(POLICY, policy_id="pci")},
)


def test_an_approval_is_good_for_nothing_else() -> None:
    """Another user, service, function, duration, agent, reason, capture, filter or policy has to be approved by itself."""

    async def scenario(at: Desk) -> None:
        await at.approvals.decide(await at.ask(), BOB, approve=True, comment="")
        for other in OTHERS:
            with pytest.raises(ApprovalRequired):
                await at.claim(**other)
        assert len(at.approvals.listed(everything=False)) == 1 + len(OTHERS)
        assert (await at.claim()).state == "used"

    on_a_desk(scenario)


def test_nobody_decides_their_own_request() -> None:
    """Not to approve it and not to deny it, whatever they may do otherwise."""

    async def scenario(at: Desk) -> None:
        approval_id = await at.ask(BOB)
        for approve in (True, False):
            with pytest.raises(PermissionDenied, match=r"request .* is their own"):
                await at.approvals.decide(approval_id, BOB, approve=approve, comment="")

    on_a_desk(scenario)


def test_a_denied_request_stays_denied_for_its_time() -> None:
    """It says who denied it and why; after that it can be asked for anew."""

    async def scenario(at: Desk) -> None:
        approval_id = await at.ask()
        await at.approvals.decide(approval_id, BOB, approve=False, comment="not\x1b[31m now")
        with pytest.raises(PermissionDenied) as caught:
            await at.claim()
        assert not isinstance(caught.value, ApprovalRequired)
        assert caught.value.message == f"bob denied request {approval_id} (not\\x1b[31m now)."
        at.now_ns += 15 * MINUTE_NS
        assert await at.ask() != approval_id

    on_a_desk(scenario)


def test_requests_and_approvals_expire() -> None:
    """A request waits for 15 minutes, an approval is good for another 15; then neither counts."""

    async def scenario(at: Desk) -> None:
        late = await at.ask()
        at.now_ns += 15 * MINUTE_NS
        with pytest.raises(FailedPrecondition, match=f"Request {late} is expired"):
            await at.approvals.decide(late, BOB, approve=True, comment="")
        approval_id = await at.ask()
        at.now_ns += 14 * MINUTE_NS
        await at.approvals.decide(approval_id, BOB, approve=True, comment="")
        at.now_ns += 15 * MINUTE_NS
        assert await at.ask() not in (late, approval_id)
        states = {one.approval_id: at.approvals.state(one) for one in at.approvals.listed(everything=True)}
        assert (states[late], states[approval_id]) == ("expired", "expired")

    on_a_desk(scenario)


def test_a_request_is_decided_once() -> None:
    """A second answer is refused, and so is one to a request that there is not."""

    async def scenario(at: Desk) -> None:
        approval_id = await at.ask()
        await at.approvals.decide(approval_id, BOB, approve=False, comment="")
        with pytest.raises(FailedPrecondition, match=f"Request {approval_id} is denied by bob"):
            await at.approvals.decide(approval_id, user("cat", "admin"), approve=True, comment="")
        with pytest.raises(NotFound):
            await at.approvals.decide("01\x1b]0;x", BOB, approve=True, comment="")
        with pytest.raises(InvalidArgument):
            await at.approvals.decide(approval_id, BOB, approve=True, comment="x" * 2000)

    on_a_desk(scenario)


def test_an_approval_can_be_withdrawn_until_it_is_used() -> None:
    """By denying it, by anybody else than who asked; then the request is denied."""

    async def scenario(at: Desk) -> None:
        approval_id = await at.ask()
        await at.approvals.decide(approval_id, BOB, approve=True, comment="")
        await at.approvals.decide(approval_id, user("cat", "admin"), approve=False, comment="not now")
        with pytest.raises(PermissionDenied, match=r"cat denied request .* \(not now\)"):
            await at.claim()
        used = await at.ask(function="other")
        await at.approvals.decide(used, BOB, approve=True, comment="")
        await at.claim(function="other")
        with pytest.raises(FailedPrecondition, match=f"Request {used} is used"):
            await at.approvals.decide(used, BOB, approve=False, comment="")

    on_a_desk(scenario)


def test_one_user_cannot_fill_the_list() -> None:
    """More than twenty requests of one user do not wait; those of others still may."""

    async def scenario(at: Desk) -> None:
        for number in range(MAX_WAITING):
            await at.ask(function=f"f{number}")
        with pytest.raises(ResourceExhausted, match="20 requests of ann wait"):
            await at.claim(function="one more")
        await at.ask(BOB)

    on_a_desk(scenario)


IMPOSSIBLE: tuple[dict[str, Any], ...] = (
    {"service": "a\x1b[31m"},
    {"function": "x" * 1025},
    {"agent_id": "a\n"},
    {"reason": "r" * 1025},
    {"sdk_addr": "a" * 9000},
    {"seconds": 0.0},
    {"seconds": 601.0},
    {"seconds": -5.0},
    {"seconds": 3e11},
)


def test_what_could_not_be_attached_is_not_put_before_anybody() -> None:
    """Names that are none, durations out of range, and requests that nobody could look through are refused as such."""

    async def scenario(at: Desk) -> None:
        for request in IMPOSSIBLE:
            with pytest.raises(InvalidArgument):
                await at.claim(**request)
        assert at.approvals.listed(everything=True) == []

    on_a_desk(scenario)


def test_requests_outlive_a_restart(tmp_path: Path) -> None:
    """What waits, is approved, denied or used is so after it as well."""

    async def scenario() -> None:
        async with desk(tmp_path / "control.duckdb") as at:
            ids = {name: await at.ask(function=name) for name in ("waits", "approved", "denied", "used")}
            for name in ("approved", "denied", "used"):
                await at.approvals.decide(ids[name], BOB, approve=name != "denied", comment=name)
            await at.claim(function="used")
            before = at.approvals.listed(everything=True)
        async with desk(tmp_path / "control.duckdb") as at:
            assert at.approvals.listed(everything=True) == before
            assert await at.ask(function="waits") == ids["waits"]
            assert (await at.claim(function="approved")).approval_id == ids["approved"]
            with pytest.raises(PermissionDenied, match="bob denied"):
                await at.claim(function="denied")
            assert await at.ask(function="used") != ids["used"]

    asyncio.run(scenario())


def test_old_requests_are_forgotten() -> None:
    """A month after they were over; the audit log has them for longer."""

    async def scenario(at: Desk) -> None:
        old = await at.ask(function="old")
        at.now_ns += 31 * 24 * 60 * MINUTE_NS
        await at.ask(function="new")
        assert [one.function_name for one in at.approvals.listed(everything=True)] == ["new"]
        await at.approvals.load()
        with pytest.raises(NotFound):
            at.approvals.get(old)

    on_a_desk(scenario)
