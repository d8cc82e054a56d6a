"""The agent's RPCs that look and change nothing: coral.mesh.v1.InspectService."""

# ruff: noqa: N802  (the methods are named as the wire names them)

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

from coral.agent.explain import Explainer
from coral.agent.images import ServiceImage, ServiceImages
from coral.agent.naming import Naming
from coral.agent.trap_cost import TrapCosts
from coral.elf.image import OpenFile
from coral.elf.parser import Parser
from coral.model.errors import CoralError, InvalidArgument, NotFound
from coral.model.inspection import FunctionPage, TrapCost, forecast
from coral.model.probe import split_function
from coral.model.text import check_name
from coral.wire import inspect_convert as convert
from coral.wire._generated.mesh.v1 import inspect_pb2, inspect_pb2_grpc

DEFAULT_LIMIT = 1000
MOST_FUNCTIONS = 100_000
MOST_BUDGET_MS = 10_000
_BUDGET_S = 1.0
_LEAST_BUDGET_S = 0.2
_ANSWER_S = 2.4
"""A list is meant to be there by then, also the first of a large file; decoding gets what reading leaves of it."""
_SLICE_S = 0.25
"""Of a budget: between slices other requests get their turn at the worker."""
_REMEMBERED = 1024


class InspectServicer(inspect_pb2_grpc.InspectServiceServicer):
    """Lists and explains functions.

    Args:
        parser: Reads images.
        images: Finds them.
        costs: What a trap costs here.
        naming: What functions are called.
    """

    def __init__(self, parser: Parser, images: ServiceImages, costs: TrapCosts, naming: Naming) -> None:
        self._parser = parser
        self._images = images
        self._explainer = Explainer(parser, images)
        self._costs = costs
        self._naming = naming
        self._spent: OrderedDict[tuple[object, ...], float] = OrderedDict()

    async def ListImages(self, request: inspect_pb2.ListImagesRequest, context: Any) -> inspect_pb2.ListImagesResponse:
        """The distinct images of a service on this host."""
        check_name(request.service_name, "service_name")
        check_name(request.library, "library", required=False)
        async with self._images.of_service(
            request.service_name, library=request.library, all_libraries=request.all_libraries
        ) as found:
            images = await self._images.identified(found)
            return inspect_pb2.ListImagesResponse(images=[_image(image) for image in images])

    async def ListFunctions(
        self, request: inspect_pb2.ListFunctionsRequest, context: Any
    ) -> inspect_pb2.ListFunctionsResponse:
        """A page of the functions of one image; decodes for a while those that have not been."""
        check_name(request.service_name, "service_name")
        check_name(request.image_id, "image_id")
        check_name(request.library, "library", required=False)
        check_name(request.pattern, "pattern", required=False)
        if request.limit > MOST_FUNCTIONS:
            raise InvalidArgument(f"limit is {request.limit:,}.", hint=f"At most {MOST_FUNCTIONS:,} are allowed.")
        if request.budget_ms > MOST_BUDGET_MS:
            raise InvalidArgument(f"budget_ms is {request.budget_ms:,}.", hint=f"At most {MOST_BUDGET_MS:,} are allowed.")
        async with self._images.of_service(request.service_name, library=request.library) as found:
            image = next(
                (
                    image
                    for image in await self._images.identified(found)
                    if image.info and image.info.image_id == request.image_id
                ),
                None,
            )
            if image is None:
                raise NotFound(
                    f"No process of {request.service_name} runs {request.image_id} any more.", hint="List them again."
                )
            async with self._images.files(image) as files:
                page = await self._page(files, request)
        return inspect_pb2.ListFunctionsResponse(
            functions=convert.functions_to(page),
            matches=page.matches,
            next_offset=page.next_offset,
            undecided=page.undecided,
        )

    async def ExplainFunction(
        self, request: inspect_pb2.ExplainFunctionRequest, context: Any
    ) -> inspect_pb2.ExplainFunctionResponse:
        """What an attach would do, and what it would cost."""
        check_name(request.service_name, "service_name")
        split_function(check_name(request.function_name, "function_name"))
        answer = await self._explainer.explain(request.service_name, request.function_name)
        cost: TrapCost | CoralError
        try:
            cost = await self._costs.cost()
        except CoralError as error:
            cost = error
        explanations = []
        for explained in answer.explained:
            message = convert.explanation_to(explained.explanation, _image(explained.image))
            expected = forecast(explained.explanation.sites, cost) if isinstance(cost, TrapCost) else None
            if expected is not None:
                message.cost.lowest_ns, message.cost.highest_ns = expected.lowest_ns, expected.highest_ns
            explanations.append(message)
        return inspect_pb2.ExplainFunctionResponse(
            explanations=explanations,
            skipped=[
                inspect_pb2.SkippedImage(
                    path=convert.text(skipped.image.path), instances=len(skipped.image.pids), reason=skipped.error.message
                )
                for skipped in answer.skipped
            ],
            trap_cost=convert.trap_cost_to(cost),
        )

    async def ResolveFunction(
        self, request: inspect_pb2.ResolveFunctionRequest, context: Any
    ) -> inspect_pb2.ResolveFunctionResponse:
        """What the code that an attach would probe is called."""
        check_name(request.service_name, "service_name")
        split_function(check_name(request.function_name, "function_name"))
        found = await self._naming.of(request.service_name, request.function_name)
        return inspect_pb2.ResolveFunctionResponse(functions=map(convert.resolved_to, found))

    async def _page(self, files: Sequence[OpenFile], request: inspect_pb2.ListFunctionsRequest) -> FunctionPage:
        limit = request.limit or DEFAULT_LIMIT
        loop = asyncio.get_running_loop()
        judge = partial(self._parser.judge, files, pattern=request.pattern, offset=request.offset, limit=limit)
        question = (*(file.key for file in files), request.pattern, request.offset, limit)
        spent_s = 0.0 if request.spend_again else self._spent.get(question, 0.0)
        begun_s = loop.time()
        left = await judge(budget_s=0)  # the first time, this reads the file
        read_s = loop.time() - begun_s
        budget_s = request.budget_ms / 1000 - spent_s
        if not request.budget_ms:
            budget_s = 0.0 if spent_s else min(_BUDGET_S, max(_LEAST_BUDGET_S, _ANSWER_S - read_s))
        begun_s = loop.time()
        while left and (left_s := begun_s + budget_s - loop.time()) > 0:
            left = await judge(budget_s=min(_SLICE_S, left_s))
        self._spent[question] = spent_s + loop.time() - begun_s
        while len(self._spent) > _REMEMBERED:
            self._spent.popitem(last=False)
        return await self._parser.functions(files, pattern=request.pattern, offset=request.offset, limit=limit)


def _image(image: ServiceImage) -> inspect_pb2.Image:
    message = inspect_pb2.Image(
        path=convert.text(image.path),
        library=convert.text(image.library),
        instances=len(image.pids),
        pid=min(image.pids),
        error=str(image.error) if image.error is not None else "",
    )
    if image.info is not None:
        message.image_id = image.info.image_id
        message.build_id = image.info.build_id
        message.language = image.info.language
        message.language_version = image.info.go_version
    return message
