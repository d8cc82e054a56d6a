"""``coral.colony.v1.InspectService``: looking into the colony's own tables."""

# ruff: noqa: N802  (the methods are named as the wire names them)

from __future__ import annotations

from typing import Any

from coral.colony.audit import Audit, caller
from coral.colony.inspect import Inspector
from coral.wire._generated.colony.v1 import inspect_pb2, inspect_pb2_grpc


class InspectServicer(inspect_pb2_grpc.InspectServiceServicer):
    """Answers ``coral db query``."""

    def __init__(self, *, inspector: Inspector, audit: Audit) -> None:
        self._inspector = inspector
        self._audit = audit

    async def QueryDatabase(
        self, request: inspect_pb2.QueryDatabaseRequest, context: Any
    ) -> inspect_pb2.QueryDatabaseResponse:
        """Runs one read-only statement."""
        who = caller(context.invocation_metadata(), context.peer())
        async with self._audit.noting(self._audit.entry(who, "QueryDatabase", reason=request.sql)):
            self._audit.flush()
            answer = await self._inspector.query(request.sql)
            return inspect_pb2.QueryDatabaseResponse(arrow_ipc=answer.arrow_ipc, truncated=answer.truncated)
