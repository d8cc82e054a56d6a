"""How often, and how many at once, a caller may call. Bounded in memory, whoever calls and from wherever."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from coral.config.settings import ColonySettings
from coral.model.errors import ResourceExhausted
from coral.model.principal import Kind, Principal
from coral.wire.guard import Call

_MAX_BUCKETS = 10_000
"""Callers that are remembered. Who is forgotten, being the longest quiet, begins with a full bucket."""
_REFUSALS_BURST = 20
"""How many times as many refusals as per second an address may have at once: people mistype, and come in groups."""
_IPV6_PREFIX = 64
"""What one host or network has of IPv6 (RFC 6177): an address in it costs nothing."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class Buckets:
    """A token bucket for each of many names: it fills at a rate, and whoever finds it empty has to wait.

    Args:
        per_s: How many tokens a second each gets.
        burst: How many it holds at most, and at first.
        monotonic: A clock, in seconds.
    """

    def __init__(self, *, per_s: float, burst: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, name: str) -> float:
        """How long until there is a token; 0 when there is one."""
        bucket = self._filled(name)
        return 0.0 if bucket is None or bucket.tokens >= 1 else (1 - bucket.tokens) / self._per_s

    def take(self, name: str) -> None:
        """Takes a token, if there is one."""
        bucket = self._filled(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._burst, self._monotonic())
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
        bucket.tokens = max(0.0, bucket.tokens - 1)
        self._buckets.move_to_end(name)

    def _filled(self, name: str) -> _Bucket | None:
        bucket = self._buckets.get(name)
        if bucket is not None:
            now = self._monotonic()
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._per_s)
            bucket.filled_at = now
        return bucket


class CallLimits:
    """The limits of calls of a colony that asks for credentials.

    Args:
        calls_per_s: Of one user or agent, for long.
        calls_burst: Of one, at once.
        calls_at_once: How many of one user or agent may be under way, streams among them.
        refusals_per_s: How many calls without a valid credential one address may make, for long.
        monotonic: A clock, in seconds.
    """

    def __init__(
        self,
        *,
        calls_per_s: float,
        calls_burst: float,
        calls_at_once: int,
        refusals_per_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = Buckets(per_s=calls_per_s, burst=calls_burst, monotonic=monotonic)
        self._calls_per_s = calls_per_s
        self._calls_at_once = calls_at_once
        self._refusals = Buckets(per_s=refusals_per_s, burst=refusals_per_s * _REFUSALS_BURST, monotonic=monotonic)
        self._under_way: Counter[str] = Counter()

    def check_address(self, call: Call) -> None:
        """Refuses an address that has shown too many bad credentials, before another is looked at.

        Raises:
            ResourceExhausted: It has to wait.
        """
        host = _network(call.address)
        wait_s = self._refusals.wait_s(host)
        if wait_s > 0:
            raise _too_often(f"{host} was refused too often: no further credential of it is looked at for now.", wait_s)

    def refused(self, call: Call) -> None:
        """Counts a credential that was none."""
        self._refusals.take(_network(call.address))

    @contextmanager
    def serving(self, principal: Principal, call: Call) -> Iterator[None]:
        """Counts a call of a caller while it runs.

        Raises:
            ResourceExhausted: On entering: too often, or too many at once.
        """
        # By kind too: what a user is called is the issuer's choice, and must not be an agent's.
        name = f"{principal.kind}/{principal.name}"
        if principal.kind is Kind.LOCAL:
            yield
            return
        wait_s = self._calls.wait_s(name)
        if wait_s > 0:
            raise _too_often(
                f"{principal.name} calls too often: {self._calls_per_s:g} calls a second are allowed for long.", wait_s
            )
        self._calls.take(name)
        if self._under_way[name] >= self._calls_at_once:
            raise ResourceExhausted(
                f"{principal.name} has {self._under_way[name]} calls under way, the most that are allowed at once.",
                hint="End one that follows a session, or wait for one to be answered.",
                details={"limit": "calls at once", "allowed": str(self._calls_at_once)},
            )
        self._under_way[name] += 1
        try:
            yield
        finally:
            self._under_way[name] -= 1
            if not self._under_way[name]:
                del self._under_way[name]


def call_limits(settings: ColonySettings) -> CallLimits:
    """The limits of calls, as they are set."""
    return CallLimits(
        calls_per_s=settings.calls_per_s,
        calls_burst=settings.calls_burst,
        calls_at_once=settings.max_calls_per_user,
        refusals_per_s=settings.refusals_per_s,
    )


def _too_often(message: str, wait_s: float) -> ResourceExhausted:
    shown_s = max(1, math.ceil(wait_s))
    return ResourceExhausted(
        message, hint=f"Try again in {shown_s} s.", details={"limit": "calls per second", "retry_after_s": str(shown_s)}
    )


def _network(address: str) -> str:
    """The host of HOST:PORT; of IPv6 the network that it is in."""
    host = address.rpartition(":")[0].strip("[]") or address
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return str(ipaddress.ip_network((ip, _IPV6_PREFIX), strict=False))
    return str(ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else ip)
