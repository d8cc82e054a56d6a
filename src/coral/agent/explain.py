"""What an attach to a function would do in the processes of a service, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from coral.agent.images import ServiceImage, ServiceImages, merged
from coral.agent.libraries import Found, the_one
from coral.agent.policy import names_of
from coral.agent.resolve import FunctionName
from coral.elf.parser import Parser
from coral.model.errors import AmbiguousName, CoralError, FailedPrecondition, NotFound
from coral.model.inspection import FunctionExplanation


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What would be done to one image.

    Attributes:
        image: Which.
        explanation: What.
    """

    image: ServiceImage
    explanation: FunctionExplanation


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A program in which nothing would be attached.

    Attributes:
        image: Which.
        error: Why not.
    """

    image: ServiceImage
    error: CoralError


@dataclass(slots=True, kw_only=True)
class Answer:
    """What an attach would do.

    Attributes:
        explained: In each image that has the function.
        skipped: Programs that do not have it, nor have their libraries.
    """

    explained: list[Explained] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


class Explainer:
    """Explains functions; finds them as an attach does: in the program, then in the libraries that it has loaded.

    Args:
        parser: Reads images.
        images: Finds them.
    """

    def __init__(self, parser: Parser, images: ServiceImages) -> None:
        self._parser = parser
        self._images = images

    async def explain(self, service: str, function_name: str) -> Answer:
        """What an attach to a function of a service would do.

        Raises:
            NotFound: No process of the service runs, or none of its images has the function.
            InvalidArgument: Several functions answer to the name in all of them that have any.
            PermissionDenied: The policy of this host denies it.
        """
        function = FunctionName.parse(function_name)
        answer = Answer()
        if function.library:
            async with self._images.of_service(service, library=function.library, function=function_name) as libraries:
                for image in libraries:
                    await self._one(answer, image, [], function.name)
                _check_apart(answer.explained, function.name)
        else:
            async with self._images.of_service(service, all_libraries=True, function=function_name) as images:
                libraries = [image for image in images if image.library]
                for image in images:
                    if not image.library:
                        mine = [each for each in libraries if set(each.pids) & set(image.pids)]
                        await self._one(answer, image, mine, function.name)
        for found in answer.explained:
            symbols = [name for each in found.explanation.addresses for name in (each.symbol, *each.also_named)]
            await self._images.check_found(service, found.image, names_of(function_name, found.explanation.name, *symbols))
        if not answer.explained:
            raise _most_telling([skipped.error for skipped in answer.skipped])
        kept = {id(image) for image in merged(explained.image for explained in answer.explained)}
        answer.explained = [explained for explained in answer.explained if id(explained.image) in kept]
        return answer

    async def _one(self, answer: Answer, image: ServiceImage, libraries: Sequence[ServiceImage], name: str) -> None:
        """Explains the function in one program, or in the first of its libraries that has it."""
        try:
            answer.explained.append(await self._in(image, name))
            return
        except (AmbiguousName, FailedPrecondition) as error:
            answer.skipped.append(Skipped(image=image, error=error))
            return
        except NotFound as error:
            missing = error
        found = []
        for library in libraries:
            try:
                what = await self._in(library, name)
            except AmbiguousName as error:
                answer.skipped.append(Skipped(image=library, error=error))
                return
            except (NotFound, FailedPrecondition):
                continue  # a library that cannot be read hides nothing that another has under this name
            exported = what.explanation.exported
            found.append(Found(path=library.path, exported=exported, deleted=library.deleted, what=what))
        if not found:
            answer.skipped.append(Skipped(image=image, error=missing))
            return
        try:
            chosen = the_one(found, name, PurePath(image.path).name).what
        except AmbiguousName as error:
            answer.skipped.append(Skipped(image=image, error=error))
        else:
            if not any(explained.image is chosen.image for explained in answer.explained):
                answer.explained.append(chosen)

    async def _in(self, image: ServiceImage, name: str) -> Explained:
        async with self._images.files(image) as files:
            explanation = await self._parser.explain(files, name, library=image.library)
        return Explained(image=image, explanation=explanation)


def _check_apart(explained: Sequence[Explained], name: str) -> None:
    """Passes unless one process has loaded several libraries of the name that was given, with such a function each.

    Raises:
        AmbiguousName: One has.
    """
    for first in explained:
        mine = [each for each in explained if set(each.image.pids) & set(first.image.pids)]
        the_one(
            [
                Found(path=each.image.path, exported=each.explanation.exported, deleted=each.image.deleted, what=each)
                for each in mine
            ],
            name,
            f"process {first.image.pids[0]}",
        )


def _most_telling(errors: Sequence[CoralError]) -> CoralError:
    for kind in (AmbiguousName, FailedPrecondition):
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0]
