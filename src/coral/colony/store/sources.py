"""What many events have in common, kept once: each row of an event names its source by a number.

Six texts per event that are the same for millions of events cost more to store than all that differs between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

_MOST = 1_000
_NAMES = ("collector_id", "agent_id", "service_name", "function_name", "event_type")
_ROWS = pa.schema([("source", pa.uint32()), ("session_id", pa.string()), *((name, pa.string()) for name in _NAMES)])
Numbers = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where events come from, and what kind they are.

    Attributes:
        session_id: Whose they are.
        collector_id: As ``UprobeEvent`` has it, and so are the others.
        agent_id: Which host.
        service_name: Which service.
        function_name: Which function.
        event_type: ``return`` or ``entry``.
    """

    session_id: str
    collector_id: str
    agent_id: str
    service_name: str
    function_name: str
    event_type: str


def sources_of(events: pa.Table, session_id: str) -> tuple[list[Source], Numbers]:
    """The different sources of a table of events, and for each event the place of its own among them.

    Args:
        events: Of ``events.batch.SCHEMA``; not empty.
        session_id: Whose they are.

    Raises:
        ValueError: There are more than anybody needs.
    """
    values: list[list[str]] = []
    codes = np.zeros(events.num_rows, "i8")
    for name in _NAMES:
        column = _one_chunk(events[name])
        values.append(column.dictionary.to_pylist())
        if len(values[-1]) > _MOST:
            raise ValueError(f"its events have {len(values[-1]):,} different values of {name}")
        if len(values[-1]) > 1:
            codes = codes * len(values[-1]) + column.indices.to_numpy()
    if codes.min() == codes.max():
        used, places = codes[:1], np.zeros(len(codes), "u4")
    else:
        used, inverse = np.unique(codes, return_inverse=True)
        places = inverse.astype("u4")
    if len(used) > _MOST:
        raise ValueError(f"its events have {len(used):,} different combinations of names")
    return [_source(session_id, values, int(code)) for code in used], places


def insert_sources(
    connection: duckdb.DuckDBPyConnection, sources: Sequence[Source], known: Mapping[Source, int]
) -> dict[Source, int]:
    """Numbers those that have no number yet; part of a transaction.

    Args:
        connection: The writer's.
        sources: Which.
        known: Those that have one.

    Returns:
        The new ones.
    """
    new = [source for source in dict.fromkeys(sources) if source not in known]
    if not new:
        return {}
    (first,) = connection.execute("SELECT coalesce(max(source), 0)::BIGINT + 1 FROM event_sources").fetchone() or (1,)
    numbered = {source: first + place for place, source in enumerate(new)}
    rows = [
        {"source": number, "session_id": source.session_id, **{name: getattr(source, name) for name in _NAMES}}
        for source, number in numbered.items()
    ]
    connection.register("new_sources", pa.Table.from_pylist(rows, schema=_ROWS))
    connection.execute("INSERT INTO event_sources SELECT * FROM new_sources")
    connection.unregister("new_sources")
    return numbered


def _one_chunk(column: pa.ChunkedArray) -> pa.DictionaryArray:
    chunks = column.unify_dictionaries().combine_chunks() if column.num_chunks > 1 else column.chunk(0)
    return chunks.chunk(0) if isinstance(chunks, pa.ChunkedArray) else chunks


def _source(session_id: str, values: Sequence[Sequence[str]], code: int) -> Source:
    """The source behind a code: a number whose digits are places in ``values``."""
    chosen = []
    for possible in reversed(values):
        code, place = divmod(code, len(possible))
        chosen.append(possible[place])
    event_type, function_name, service_name, agent_id, collector_id = chosen
    return Source(
        session_id=session_id,
        collector_id=collector_id,
        agent_id=agent_id,
        service_name=service_name,
        function_name=function_name,
        event_type=event_type,
    )
