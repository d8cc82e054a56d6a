"""Connections that speak HTTP/2 badly, or not at all: bytes straight onto the port."""

from __future__ import annotations

import asyncio
import random

from coral.wire.address import split_address

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, section 3.4
_SETTINGS, _HEADERS, _DATA, _RST_STREAM, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 4, 1, 0, 3, 6, 7, 8, 9
_END_HEADERS, _END_STREAM = 4, 1
_READ_S = 0.15
_CONTENT_TYPES = (
    b"text/html", b"application/json", b"", b"application/grpc-web", b"application/grpc+json", b"application/GRPC",
    b"application/grpc;" + b"x" * 3000, b"application/grpc",
)  # fmt: skip


async def case(randomness: random.Random, address: str, paths: list[str]) -> str:
    """One connection; returns whether the server closed it, or what it was about to say."""
    host, port = split_address(address)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        kind = randomness.choice((_noise, _frames, _frames, _wrong_headers, _wrong_headers, _half))
        for part in kind(randomness, paths):
            writer.write(part)
        async with asyncio.timeout(5):
            await writer.drain()
        closed = False
        try:
            async with asyncio.timeout(_READ_S):
                while not closed:
                    closed = not await reader.read(65_536)
        except TimeoutError:
            return f"{kind.__name__}: open"
    except ConnectionError:
        return f"{kind.__name__}: reset"
    else:
        return f"{kind.__name__}: closed"
    finally:
        writer.transport.abort()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _noise(randomness: random.Random, _paths: list[str]) -> list[bytes]:
    first = randomness.choice((b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", PREFACE))
    return [first, randomness.randbytes(randomness.choice((0, 10, 5000, 200_000)))]


def _frames(randomness: random.Random, _paths: list[str]) -> list[bytes]:
    """Frames in any order, of any kind, on any stream, with any payload."""
    parts = [PREFACE, _frame(_SETTINGS, 0, 0, b"")]
    for _ in range(randomness.choice((1, 5, 500))):
        kind = randomness.choice(
            (_SETTINGS, _HEADERS, _DATA, _RST_STREAM, _PING, _GOAWAY, _WINDOW, _CONTINUATION, 2, 5, 0xFF)
        )
        stream = randomness.choice((0, 1, 3, 2, (1 << 31) - 1))
        size = randomness.choice((0, 4, 5, 8, 6, 100, 17_000))
        parts.append(_frame(kind, randomness.getrandbits(8), stream, randomness.randbytes(size)))
    return parts


def _wrong_headers(randomness: random.Random, paths: list[str]) -> list[bytes]:
    """A request that is well-formed HTTP/2, and no gRPC."""
    fields = [
        (b":method", randomness.choice((b"POST", b"GET", b"PUT", b"\xff"))),
        (b":scheme", randomness.choice((b"http", b"https", b"ftp"))),
        (b":path", randomness.choice([*(path.encode() for path in paths), b"", b"/", b"//", b"/x" * 3000, b"*"])),
        (b":authority", randomness.choice((b"localhost", b"", b"a" * 300, b"\0"))),
        (b"te", randomness.choice((b"trailers", b"gzip"))),
        (b"content-type", randomness.choice(_CONTENT_TYPES)),
        (b"grpc-timeout", randomness.choice((b"1S", b"0n", b"-1S", b"99999999999H", b"x", b"1"))),
        (b"grpc-encoding", randomness.choice((b"identity", b"gzip", b"nothing"))),
    ]
    if randomness.random() < 0.3:
        randomness.shuffle(fields)
    if randomness.random() < 0.3:
        del fields[randomness.randrange(len(fields))]
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
    body = randomness.choice((b"", b"\0\0\0\0\0", b"\0\xff\xff\xff\xff", b"\1\0\0\0\4xxxx", b"\0\0\0\0\5\x0a\3abc"))
    parts = [PREFACE, _frame(_SETTINGS, 0, 0, b"")]
    if len(block) < 16_000:
        parts += [_frame(_HEADERS, _END_HEADERS, 1, block), _frame(_DATA, _END_STREAM, 1, body)]
    else:
        parts += [_frame(_HEADERS, 0, 1, block[:8000]), _frame(_CONTINUATION, _END_HEADERS, 1, block[8000:16_000])]
    return parts


def _half(randomness: random.Random, paths: list[str]) -> list[bytes]:
    """The beginning of something."""
    whole = b"".join(_wrong_headers(randomness, paths))
    return [whole[: randomness.randrange(len(whole))]]


def _text(value: bytes) -> bytes:
    """A string literal of HPACK, not compressed (RFC 7541, section 5.2)."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, coded = len(value) - 127, bytearray([127])
    while rest > 0x7F:
        coded.append(rest & 0x7F | 0x80)
        rest >>= 7
    coded.append(rest)
    return bytes(coded) + value
