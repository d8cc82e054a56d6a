"""The colony's audit log, and the removal of data, as a client sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from coral.client.colony import ColonyClient
from coral.wire._generated.colony.v1 import audit_pb2, audit_pb2_grpc

VERIFY_TIMEOUT_S = 900.0
PURGE_TIMEOUT_S = 900.0
EXPORT_TIMEOUT_S = 3600.0
_PAGE = 500


class AuditClient:
    """Calls of ``AuditService`` over a connection to a colony; raises what that raises."""

    def __init__(self, colony: ColonyClient) -> None:
        self._colony = colony
        self._stub = audit_pb2_grpc.AuditServiceStub(colony.channel)

    async def query(self, request: audit_pb2.QueryAuditRequest, *, limit: int) -> AsyncIterator[audit_pb2.AuditRecord]:
        """Matching records, newest first.

        Args:
            request: Which; its page is set here.
            limit: At most so many; 0 for all.
        """
        left = limit
        while True:
            request.page_size = min(left, _PAGE) if limit else _PAGE
            page: audit_pb2.QueryAuditResponse = await self._colony.call(self._stub.QueryAudit, request)
            for record in page.records:
                yield record
            left -= len(page.records)
            request.page_token = page.next_page_token
            if not page.next_page_token or (limit and left <= 0):
                return

    async def export(self) -> AsyncIterator[bytes]:
        """Every record, as whole lines of JSON, oldest first."""
        stream = self._colony.stream(self._stub.ExportAudit, audit_pb2.ExportAuditRequest(), EXPORT_TIMEOUT_S)
        async for part in stream:
            yield part.lines

    async def verify(self) -> audit_pb2.VerifyAuditResponse:
        """Whether both copies are what was written."""
        response: audit_pb2.VerifyAuditResponse = await self._colony.call(
            self._stub.VerifyAudit, audit_pb2.VerifyAuditRequest(), VERIFY_TIMEOUT_S
        )
        return response

    async def purge(self, request: audit_pb2.PurgeDataRequest) -> audit_pb2.PurgeDataResponse:
        """Removes ended sessions."""
        response: audit_pb2.PurgeDataResponse = await self._colony.call(self._stub.PurgeData, request, PURGE_TIMEOUT_S)
        return response
