"""Text that nobody meant to be a name: for every field that takes one."""

from __future__ import annotations

import random
import sys

KNOWN = (
    "", "checkout", "main.Pay", "libc.so.6!malloc", "dup_a.c:work", "std::vector<int>::push_back(int)", "operator!=",
    "<T as core::fmt::Debug>::fmt", "main.Map[go.shape.int].Get", "agent-1", "127.0.0.1:9", "unix:/run/x.sock", "[::1]:80",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV", "active", "summary", "count", "%s%n%x", "{0.__class__}", "${jndi:ldap://x}", "$(id)",
    "'; DROP TABLE audit_log; --", "SELECT * FROM audit_log", "../../../etc/passwd", "/proc/self/mem", "..\\..\\x", "`id`",
    "<img src=x onerror=alert(1)>", "[red]x[/red]", "[link=http://x]y[/link]", "\x1b]0;owned\x07", "\x1b[2J", "\x9b31m",
    "a\nb", "a\rb", "a\x00b", "\u202eevil", "\u200b", "\ufeff", "\ud7ff", "\U0010ffff", "\u0130", "\u00df" * 40,
    "e\u0301" * 50, "\U0001f469\u200d\U0001f467" * 20, "A" * 1023, "A" * 1024, "A" * 1025, "A" * 70_000, "-", "--help", "*",
    "?", "*" * 200, "[" * 500, "(" * 500, "a{1,99999}", "\\" * 99, "0", "-1", "1e999", "NaN", "9" * 400, "1m30s", "0x7f",
    "true", "null", '{"a":[{}]}', "permit(principal,action,resource);", "Bearer x", "coral_user_aaaaaaaaaaaaaaaa_" + "a" * 52,
    "eyJhbGciOiJub25lIn0.e30.", "coral://agent/x", "%2e%2e%2f", "a@b",
)  # fmt: skip
_RANGES = ((0, 0x20), (0x20, 0x7F), (0x80, 0x100), (0x100, 0x2000), (0x2000, 0x2070), (0x1F300, 0x1F700), (0xE000, 0xE010))


def text(randomness: random.Random) -> str:
    """A text that protobuf can carry: no lone surrogates."""
    choice = randomness.random()
    if choice < 0.6:
        return randomness.choice(KNOWN)
    if choice < 0.8:
        base = list(randomness.choice(KNOWN)[:2000])
        for _ in range(randomness.randint(1, 4)):
            base.insert(randomness.randint(0, len(base)), _character(randomness))
        return "".join(base)
    return "".join(_character(randomness) for _ in range(randomness.choice((1, 3, 30, 300, 1024, 1025))))


def any_text(randomness: random.Random) -> str:
    """A text as Python can hold it, with halves of surrogate pairs."""
    found = text(randomness)
    if randomness.random() < 0.2:
        at = randomness.randint(0, len(found))
        return found[:at] + chr(randomness.randrange(0xD800, 0xE000)) + found[at:]
    return found


def damaged(randomness: random.Random, content: bytes) -> bytes:
    """Bytes with some of them changed, gone, doubled or new."""
    changed = bytearray(content)
    for _ in range(randomness.choice((1, 1, 1, 2, 5, 20))):
        at = randomness.randint(0, len(changed))
        kind = randomness.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << randomness.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = randomness.randrange(256)
        elif kind == 2:
            del changed[at : at + randomness.choice((1, 2, 10, 1000))]
        elif kind == 3:
            changed[at:at] = randomness.randbytes(randomness.choice((1, 4, 50)))
        elif kind == 4:
            other = randomness.randint(0, len(changed))
            changed[at:at] = changed[other : other + randomness.choice((1, 20, 400))]
        else:
            changed[at:at] = randomness.choice((b"\xff" * 10, b"\0" * 9, b"\n", b'"', b"{", b"[" * 300))
    return bytes(changed)


def _character(randomness: random.Random) -> str:
    low, high = randomness.choice(_RANGES)
    return chr(min(randomness.randrange(low, high), sys.maxunicode))
