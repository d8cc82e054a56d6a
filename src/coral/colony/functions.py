"""``coral function list`` and ``coral debug info``: questions that agents answer, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from coral.client.agent import AgentClient
from coral.colony.pool import AgentPool
from coral.colony.refusal import refusal
from coral.colony.registry import Registry
from coral.model.errors import CoralError, FailedPrecondition, InvalidArgument, NotFound
from coral.model.probe import split_function
from coral.model.service import Agent
from coral.model.text import check_name
from coral.wire import paging
from coral.wire._generated.colony.v1 import inspect_pb2
from coral.wire._generated.mesh.v1 import inspect_pb2 as mesh

T = TypeVar("T")

MOST_FUNCTIONS = 100_000
MOST_BUDGET_MS = 10_000
_DEFAULT_BUDGET_MS = 1000
_PAGE_BYTES = 4 << 20
"""A page ends with the image that passes this; that image's own part may have twice as much, and a message four times."""
_TIMEOUT_S = 30.0


@dataclass(slots=True, kw_only=True)
class _Image:
    """One image of a service, on every host that runs it."""

    message: mesh.Image
    agents: list[Agent] = field(default_factory=list)


class Functions:
    """Asks agents about functions.

    Args:
        registry: Which agents there are.
        pool: How to reach them.
    """

    def __init__(self, registry: Registry, pool: AgentPool) -> None:
        self._registry = registry
        self._pool = pool

    async def page(self, request: inspect_pb2.ListFunctionsRequest) -> inspect_pb2.ListFunctionsResponse:
        """A page of the functions of a service: of each distinct image once, from one of the hosts that run it.

        Raises:
            NotFound: No process of the service runs, or none has loaded the library.
            InvalidArgument: A value is out of its range, or the page_token is of another query.
            FailedPrecondition: None of its images can be read.
            CoralError: What the agents said, when all of them failed.
        """
        library, pattern = _checked(request)
        size = paging.page_size(request.page_size, field="page_size", maximum=MOST_FUNCTIONS)
        query = {
            "service": request.service_name, "pattern": pattern, "library": library, "all": request.all_libraries,
        }  # fmt: skip
        position: Mapping[str, Any] = {"image": "", "offset": 0}
        if request.page_token:
            position = paging.read_token(request.page_token, query)
        images, warnings = await self._images(
            mesh.ListImagesRequest(service_name=request.service_name, library=library, all_libraries=request.all_libraries)
        )
        response = inspect_pb2.ListFunctionsResponse(warnings=warnings)
        readable = [image for image in images if not image.message.error]
        if images and not readable:
            raise FailedPrecondition(f"{images[0].message.path} cannot be read: {images[0].message.error}")
        first = next((at for at, image in enumerate(readable) if image.message.image_id == position["image"]), None)
        if first is None and position["image"]:
            raise InvalidArgument("The image that this page goes on with is not run any more.", hint="List anew.")
        budget_ms = request.budget_ms  # for the first image; the agent's own choice when it is 0
        begun_s = asyncio.get_running_loop().time()
        told, offset, upcoming = 0, int(position["offset"]), ""
        for image in readable[first or 0 :]:
            if told >= size or response.ByteSize() > _PAGE_BYTES:
                upcoming = image.message.image_id
                break
            found = await self._functions(
                image,
                mesh.ListFunctionsRequest(
                    service_name=request.service_name,
                    image_id=image.message.image_id,
                    library=image.message.library,
                    pattern=pattern,
                    offset=offset,
                    limit=size - told,
                    budget_ms=budget_ms,
                    spend_again=request.spend_again,
                ),
            )
            part = _part(response, image)
            part.functions.CopyFrom(found.functions)
            part.matches, part.undecided = found.matches, found.undecided
            spent_ms = round((asyncio.get_running_loop().time() - begun_s) * 1000)
            budget_ms = max(1, (request.budget_ms or _DEFAULT_BUDGET_MS) - spent_ms)
            told, offset = told + len(found.functions.name), found.next_offset
            if offset:
                upcoming = image.message.image_id
                break
        if upcoming:
            response.next_page_token = paging.make_token(query, {"image": upcoming, "offset": offset})
        if not request.page_token:
            shown = {part.image.image_id for part in response.images}
            for image in images:
                if image.message.error or image.message.image_id not in shown:
                    _part(response, image)
        return response

    async def explain(self, request: inspect_pb2.ExplainFunctionRequest) -> inspect_pb2.ExplainFunctionResponse:
        """What an attach to a function would do on every host of the service.

        Raises:
            NotFound: No process of the service runs, or none has the function.
            InvalidArgument: Several functions answer to the name.
            CoralError: What the agents said, when all of them failed.
        """
        check_name(request.service_name, "service_name")
        split_function(check_name(request.function_name, "function_name"))
        question = mesh.ExplainFunctionRequest(service_name=request.service_name, function_name=request.function_name)
        answers, warnings = await self._ask_all(
            request.service_name, lambda client, left_s: client.explain_function(question, timeout_s=left_s)
        )
        return inspect_pb2.ExplainFunctionResponse(
            hosts=[
                inspect_pb2.HostExplanation(
                    agent_id=agent.agent_id,
                    explanations=answer.explanations,
                    skipped=answer.skipped,
                    trap_cost=answer.trap_cost,
                )
                for agent, answer in answers
            ],
            warnings=warnings,
        )

    async def _images(self, question: mesh.ListImagesRequest) -> tuple[Sequence[_Image], list[str]]:
        """The distinct images, programs before libraries, those that most processes run before others."""
        answers, warnings = await self._ask_all(
            question.service_name, lambda client, left_s: client.list_images(question, timeout_s=left_s)
        )
        found: dict[tuple[str, str], _Image] = {}
        for agent, answer in answers:
            for message in answer.images:
                # One that cannot be read is told by its path.
                name = (message.image_id, "") if message.image_id else (agent.agent_id, message.path)
                image = found.setdefault(name, _Image(message=mesh.Image()))
                instances = image.message.instances + message.instances
                if not image.agents:
                    image.message.CopyFrom(message)
                image.message.instances = instances
                image.agents.append(agent)
        order = sorted(
            found.values(), key=lambda each: (each.message.library != "", -each.message.instances, each.message.path)
        )
        return order, warnings

    async def _functions(self, image: _Image, question: mesh.ListFunctionsRequest) -> mesh.ListFunctionsResponse:
        """Asks the hosts that run an image, one after the other, until one answers."""
        failures: dict[str, CoralError] = {}
        for agent in image.agents:
            try:
                return await self._pool.call(
                    agent, lambda client, left_s: client.list_functions(question, timeout_s=left_s), timeout_s=_TIMEOUT_S
                )
            except CoralError as error:
                failures[agent.agent_id] = error
        raise refusal(self._registry, question.service_name, failures)

    async def _ask_all(
        self, service_name: str, question: Callable[[AgentClient, float], Awaitable[T]]
    ) -> tuple[list[tuple[Agent, T]], list[str]]:
        """The answers of the agents that have one, and what the others said, when that is not just that they do not run it.

        Raises:
            CoralError: None has.
        """
        agents = self._registry.hosts_of(service_name)
        outcomes = await asyncio.gather(
            *(self._pool.call(agent, question, timeout_s=_TIMEOUT_S) for agent in agents), return_exceptions=True
        )
        answers: list[tuple[Agent, T]] = []
        failures: dict[str, CoralError] = {}
        for agent, outcome in zip(agents, outcomes, strict=True):
            if isinstance(outcome, CoralError):
                failures[agent.agent_id] = outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                answers.append((agent, outcome))
        if not answers:
            raise refusal(self._registry, service_name, failures)
        warnings = [f"{agent_id}: {error}" for agent_id, error in failures.items() if not isinstance(error, NotFound)]
        return answers, warnings


def _checked(request: inspect_pb2.ListFunctionsRequest) -> tuple[str, str]:
    """Library and pattern of a request for a list."""
    check_name(request.service_name, "service_name")
    check_name(request.pattern, "pattern", required=False)
    check_name(request.library, "library", required=False)
    library, pattern = split_function(request.pattern)
    if library and request.library not in ("", library):
        raise InvalidArgument(f"The pattern is for {library}, the library {request.library}.", hint="Give one of them.")
    if request.budget_ms > MOST_BUDGET_MS:
        raise InvalidArgument(f"budget_ms is {request.budget_ms:,}.", hint=f"At most {MOST_BUDGET_MS:,} are allowed.")
    return library or request.library, pattern


def _part(response: inspect_pb2.ListFunctionsResponse, image: _Image) -> inspect_pb2.ImageFunctions:
    return response.images.add(image=image.message, agent_ids=[agent.agent_id for agent in image.agents])
