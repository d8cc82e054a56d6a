"""Lists and explanations of functions, put together from several hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.running_colony import running_colony
from support.synthetic_agent import SyntheticAgent

from coral.client.colony import ColonyClient
from coral.model.errors import CoralError, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from coral.wire._generated.colony.v1 import inspect_pb2
from coral.wire._generated.mesh.v1 import inspect_pb2 as mesh
from coral.wire._generated.mesh.v1 import inspect_pb2_grpc


class Images(inspect_pb2_grpc.InspectServiceServicer):
    """What one host says of the images of a service.

    Attributes:
        images: By id, how many processes run it and the names of its functions.
        unreadable: Paths of images that cannot be read.
        fails: What each call raises; None for nothing.
        asked: The image ids that functions were asked of.
    """

    def __init__(self, images: Mapping[str, tuple[int, Sequence[str]]]) -> None:
        self.images = dict(images)
        self.unreadable: list[str] = []
        self.fails: CoralError | None = None
        self.asked: list[str] = []

    async def ListImages(self, request: mesh.ListImagesRequest, context: Any) -> mesh.ListImagesResponse:
        """All of them."""
        if self.fails is not None:
            raise self.fails
        if not self.images and not self.unreadable:
            raise NotFound(f"No process of service {request.service_name!r} runs here.")
        return mesh.ListImagesResponse(
            images=[
                mesh.Image(image_id=image_id, path=f"/usr/bin/{image_id}", instances=instances)
                for image_id, (instances, _) in self.images.items()
            ]
            + [mesh.Image(path=path, instances=1, error="It is a 32-bit program.") for path in self.unreadable]
        )

    async def ListFunctions(self, request: mesh.ListFunctionsRequest, context: Any) -> mesh.ListFunctionsResponse:
        """A page of one of them."""
        self.asked.append(request.image_id)
        if request.image_id not in self.images:
            raise NotFound("It is not run any more.")
        names = [name for name in self.images[request.image_id][1] if request.pattern in name]
        page = names[request.offset : request.offset + request.limit]
        behind = request.offset + len(page)
        table = mesh.FunctionTable(
            name=page,
            demangled=[""] * len(page),
            language=[0] * len(page),
            verdict=[0] * len(page),
            languages=["c"],
            verdicts=[mesh.Verdict(probeable="yes", exact=True)],
        )
        return mesh.ListFunctionsResponse(
            functions=table, matches=len(names), next_offset=behind if behind < len(names) else 0
        )

    async def ExplainFunction(self, request: mesh.ExplainFunctionRequest, context: Any) -> mesh.ExplainFunctionResponse:
        """One explanation for each of them."""
        if self.fails is not None:
            raise self.fails
        return mesh.ExplainFunctionResponse(
            explanations=[
                mesh.Explanation(image=mesh.Image(image_id=image_id, instances=instances), name=request.function_name)
                for image_id, (instances, _) in self.images.items()
            ],
            trap_cost=mesh.TrapCost(emulated_ns=700),
        )


@asynccontextmanager
async def fleet(state_dir: Path, *hosts: Images) -> AsyncIterator[ColonyClient]:
    """A colony whose agents ``host-0``, ``host-1``, ... say what ``hosts`` say."""
    async with AsyncExitStack() as stack:
        colony = await stack.enter_async_context(running_colony(state_dir))
        for number, images in enumerate(hosts):
            agent = SyntheticAgent(f"host-{number}")
            agent.more_services.append(partial(inspect_pb2_grpc.add_InspectServiceServicer_to_server, images))
            await stack.enter_async_context(agent)
            await agent.report_to(colony)
        yield await stack.enter_async_context(ColonyClient(colony))


def request(**fields: Any) -> inspect_pb2.ListFunctionsRequest:
    """A request for the functions of the service."""
    return inspect_pb2.ListFunctionsRequest(service_name="checkout", **fields)


def shown(page: inspect_pb2.ListFunctionsResponse) -> list[tuple[str, int, list[str], list[str]]]:
    """Image, instances, agents and names of each part of a page."""
    return [
        (part.image.image_id, part.image.instances, list(part.agent_ids), list(part.functions.name)) for part in page.images
    ]


def test_each_image_is_listed_once(tmp_path: Path) -> None:
    """An image on two hosts is asked of one of them; the one that most processes run comes first."""
    first, second = Images({"old": (1, ["a", "b"])}), Images({"new": (4, ["c"]), "old": (2, ["a", "b"])})

    async def run() -> None:
        async with fleet(tmp_path, first, second) as client:
            page = await client.functions(request())
        assert shown(page) == [("new", 4, ["host-1"], ["c"]), ("old", 3, ["host-0", "host-1"], ["a", "b"])]
        assert (list(page.warnings), page.next_page_token) == ([], "")
        assert (first.asked, second.asked) == (["old"], ["new"])

    asyncio.run(run())


def test_pages_go_through_all_images(tmp_path: Path) -> None:
    """Pages of any size hold each function once, image after image; the first one names all images."""
    host = Images({"one": (3, [f"f{n}" for n in range(5)]), "none": (2, []), "two": (1, ["g0", "g1"])})

    async def run() -> None:
        async with fleet(tmp_path, host) as client:
            for size in (1, 2, 3, 5, 7, 100):
                names, token, pages = [], "", 0
                while True:
                    page = await client.functions(request(page_size=size, page_token=token))
                    if not token:
                        assert {part.image.image_id for part in page.images} == {"one", "none", "two"}
                    names += [name for part in page.images for name in part.functions.name]
                    token, pages = page.next_page_token, pages + 1
                    if not token:
                        break
                assert names == ["f0", "f1", "f2", "f3", "f4", "g0", "g1"]
                assert pages <= 7 // size + 2

    asyncio.run(run())


def test_a_token_is_good_for_its_query(tmp_path: Path) -> None:
    """A token of another pattern is refused, and so is one whose image is gone."""
    host = Images({"one": (1, ["f0", "f1", "f2"])})

    async def run() -> None:
        async with fleet(tmp_path, host) as client:
            token = (await client.functions(request(page_size=1))).next_page_token
            with pytest.raises(InvalidArgument, match="page_token"):
                await client.functions(request(pattern="f", page_token=token))
            host.images = {"two": (1, ["f0"])}
            with pytest.raises(InvalidArgument, match="not run any more"):
                await client.functions(request(page_token=token))
            for wrong in ({"page_size": 200_000}, {"budget_ms": 20_000}, {"pattern": "libc.so.6!"}):
                with pytest.raises(InvalidArgument):
                    await client.functions(request(**wrong))

    asyncio.run(run())


def test_hosts_that_cannot_answer(tmp_path: Path) -> None:
    """A host that fails is a warning when another answers, and the error when none does; not to run it is no failure."""
    failing, idle, fine = Images({}), Images({}), Images({"one": (1, ["f0"])})
    failing.fails = FailedPrecondition("The file is damaged.", hint="Build it again.")

    async def run() -> None:
        async with fleet(tmp_path, failing, idle, fine) as client:
            page = await client.functions(request())
            assert shown(page) == [("one", 1, ["host-2"], ["f0"])]
            assert list(page.warnings) == ["host-0: The file is damaged. Build it again."]
            fine.images = {}
            with pytest.raises(FailedPrecondition, match="damaged"):
                await client.functions(request())
            failing.fails = None
            with pytest.raises(NotFound, match="runs here"):
                await client.functions(request())

    asyncio.run(run())


def test_another_host_is_asked_when_the_first_lost_the_image(tmp_path: Path) -> None:
    """When the process ended between the two questions, the next host that has the image answers."""
    leaving, staying = Images({"one": (1, ["f0"])}), Images({"one": (1, ["f0"])})

    async def gone(question: mesh.ListFunctionsRequest, context: Any) -> mesh.ListFunctionsResponse:
        raise Unavailable("It is being restarted.")

    leaving.ListFunctions = gone  # type: ignore[method-assign]

    async def run() -> None:
        async with fleet(tmp_path, leaving, staying) as client:
            page = await client.functions(request())
        assert shown(page) == [("one", 2, ["host-0", "host-1"], ["f0"])]
        assert staying.asked == ["one"]

    asyncio.run(run())


def test_every_host_explains(tmp_path: Path) -> None:
    """Explanations come from every host with what a trap costs there; one that fails is a warning."""
    first, second = Images({"one": (1, [])}), Images({"one": (2, [])})

    async def run() -> None:
        async with fleet(tmp_path, first, second) as client:
            answer = await client.explain("checkout", "main.Pay")
            told = [
                (host.agent_id, host.explanations[0].image.instances, host.trap_cost.emulated_ns) for host in answer.hosts
            ]
            assert told == [("host-0", 1, 700), ("host-1", 2, 700)]
            second.fails = FailedPrecondition("The file is damaged.")
            answer = await client.explain("checkout", "main.Pay")
            assert [host.agent_id for host in answer.hosts] == ["host-0"]
            assert list(answer.warnings) == ["host-1: The file is damaged."]
            first.fails = NotFound("There is no such function.", hint="The nearest are: main.Play.")
            second.fails = first.fails
            with pytest.raises(NotFound, match="no such function") as caught:
                await client.explain("checkout", "main.Pay")
            assert "main.Play" in caught.value.hint

    asyncio.run(run())


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    """An image that cannot be read is told beside those that can, and is the error when there is no other."""
    host = Images({"one": (2, ["f0"])})
    host.unreadable = ["/usr/bin/old"]

    async def run() -> None:
        async with fleet(tmp_path, host) as client:
            page = await client.functions(request())
            told = [(part.image.path, part.image.error, list(part.functions.name)) for part in page.images]
            assert told == [("/usr/bin/one", "", ["f0"]), ("/usr/bin/old", "It is a 32-bit program.", [])]
            host.images = {}
            with pytest.raises(FailedPrecondition, match="/usr/bin/old cannot be read: It is a 32-bit program"):
                await client.functions(request())

    asyncio.run(run())
