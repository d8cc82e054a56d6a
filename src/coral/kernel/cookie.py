"""The cookie of a site: everything that the programs must know when it is hit. Mirrors the enum in probe.bpf.c."""

from __future__ import annotations

from coral.model.site import Pairing, Site, SiteKind

MAX_SITES = 1 << 16
MAX_GROUPS = 1 << 16

_TAIL = 1 << 8
_GO = 1 << 9
_UNSEEN = 1 << 10
_CONDITIONAL = 1 << 11
_CONDITION_SHIFT = 12
_GOID_SHIFT = 16
_GOID_UNIT_BYTES = 8
_GOID_LIMIT = 256
_SITE_SHIFT = 32
_GROUP_SHIFT = 48


def cookie_of(
    site: Site, *, slot: int, index: int, pairing: Pairing, unseen: bool, group: int = 0, goid_offset: int = 0
) -> int:
    """The cookie of one site.

    Args:
        site: What it is.
        slot: Of its collector.
        index: Of the site among the collector's sites, below ``MAX_SITES``.
        pairing: What identifies a call.
        unseen: Whether an entry is all that will be seen of a call.
        group: Which of the collector's images the site belongs to, below ``MAX_GROUPS``.
        goid_offset: Where the number of a goroutine is in it, in bytes; 0 when that is not known.

    Raises:
        ValueError: ``index``, ``group`` or ``goid_offset`` does not fit.
    """
    if not (0 <= index < MAX_SITES and 0 <= group < MAX_GROUPS):
        raise ValueError(f"site index {index} of group {group} does not fit a cookie")
    goid_at, rest = divmod(goid_offset, _GOID_UNIT_BYTES)
    if rest or not 0 <= goid_at < _GOID_LIMIT:
        raise ValueError(f"a goroutine's number at {goid_offset} does not fit a cookie")
    cookie = slot | goid_at << _GOID_SHIFT | index << _SITE_SHIFT | group << _GROUP_SHIFT
    if site.kind is SiteKind.TAIL:
        cookie |= _TAIL
    if pairing is Pairing.GO:
        cookie |= _GO
    if unseen:
        cookie |= _UNSEEN
    if site.condition >= 0:
        cookie |= _CONDITIONAL | site.condition << _CONDITION_SHIFT
    return cookie
