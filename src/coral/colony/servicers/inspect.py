"""``coral.colony.v1.InspectService``: looking into the colony's own tables, and into the programs of a service."""

# ruff: noqa: N802  (the methods are named as the wire names them)

from __future__ import annotations

from typing import Any

from coral.colony.audit import Audit
from coral.colony.function_policies import FunctionPolicies
from coral.colony.functions import Functions
from coral.colony.inspect import Inspector
from coral.model.principal import current_principal
from coral.wire._generated.colony.v1 import inspect_pb2, inspect_pb2_grpc


class InspectServicer(inspect_pb2_grpc.InspectServiceServicer):
    """Answers ``coral db query``, ``coral function list`` and ``coral debug info``."""

    def __init__(self, *, inspector: Inspector, functions: Functions, policies: FunctionPolicies, audit: Audit) -> None:
        self._inspector = inspector
        self._functions = functions
        self._policies = policies
        self._audit = audit

    async def QueryDatabase(
        self, request: inspect_pb2.QueryDatabaseRequest, context: Any
    ) -> inspect_pb2.QueryDatabaseResponse:
        """Runs one read-only statement."""
        who = current_principal()
        async with self._audit.noting(self._audit.entry(who, "QueryDatabase", reason=request.sql)):
            await self._audit.flush()
            answer = await self._inspector.query(request.sql)
            return inspect_pb2.QueryDatabaseResponse(arrow_ipc=answer.arrow_ipc, truncated=answer.truncated)

    async def ListFunctions(
        self, request: inspect_pb2.ListFunctionsRequest, context: Any
    ) -> inspect_pb2.ListFunctionsResponse:
        """A page of the functions of a service."""
        who = current_principal()
        entry = self._audit.entry(who, "ListFunctions", service_name=request.service_name, reason=request.pattern)
        async with self._audit.noting(entry):
            page = await self._functions.page(request)
            await self._policies.mark(who, request.service_name, page)
            return page

    async def ExplainFunction(
        self, request: inspect_pb2.ExplainFunctionRequest, context: Any
    ) -> inspect_pb2.ExplainFunctionResponse:
        """What an attach to a function would do, and what it would cost."""
        who = current_principal()
        entry = self._audit.entry(
            who, "ExplainFunction", service_name=request.service_name, function_name=request.function_name
        )
        async with self._audit.noting(entry):
            return await self._functions.explain(request)
