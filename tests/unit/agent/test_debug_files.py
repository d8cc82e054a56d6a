"""Where files with the symbols of a stripped image are looked for."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from coral.agent import debug_files
from coral.agent.debug_files import DebugFiles
from coral.elf.image import ImageInfo

_BUILD_ID = "aa" + "1234" * 9


def _info(*, build_id: str = _BUILD_ID, debug_link: str = "p.debug", stripped: bool = True) -> ImageInfo:
    return ImageInfo(
        image_id="",
        build_id=build_id,
        machine="x86_64",
        language="c",
        go_version="",
        pie=True,
        stripped=stripped,
        debug_link=debug_link,
    )


def _make(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * number)


def _found(folder: Path, info: ImageInfo, path: str) -> list[tuple[str, bool]]:
    """What is found for an image of this very process, and whether by name; each is open, and none afterwards."""

    async def run() -> list[tuple[str, bool]]:
        async with DebugFiles([str(folder)]).beside(os.getpid(), path, info) as files:
            assert all(os.fstat(file.fd).st_size == file.key.size for file in files)
            found = [(file.path, file.linked) for file in files]
        for file in files:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(file.fd)
        return found

    return asyncio.run(run())


def test_every_usual_place_is_looked_at(tmp_path: Path) -> None:
    """By build id first, then by name: beside the image, in .debug, and below the folder."""
    folder, image = tmp_path / "debug", tmp_path / "bin" / "p"
    places = [
        folder / ".build-id" / "aa" / f"{_BUILD_ID[2:]}.debug",
        image.parent / "p.debug",
        image.parent / ".debug" / "p.debug",
        folder / str(image.parent)[1:] / "p.debug",
    ]
    _make(*places)
    expected = [(str(place), place is not places[0]) for place in places]
    assert _found(folder, _info(), str(image)) == expected
    assert _found(folder, _info(debug_link=""), str(image)) == expected[:1]
    assert _found(folder, _info(build_id=""), str(image)) == expected[1:]
    assert _found(folder, _info(stripped=False), str(image)) == []


def test_names_from_an_image_lead_into_no_other_folder(tmp_path: Path) -> None:
    """They are told by a process that has read the image, so they are not believed to be names."""
    folder = tmp_path / "debug"
    _make(tmp_path / "secret", tmp_path / "secret.debug", folder / ".build-id" / "aa" / "b.debug")
    for info in (
        _info(build_id="../../secret", debug_link="../secret"),
        _info(build_id="aa/../../../secret", debug_link=".."),
        _info(build_id="", debug_link=f"{tmp_path}/secret"),
    ):
        assert _found(folder, info, str(tmp_path / "bin" / "p")) == []


def test_a_file_system_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The attach goes on without, threads do not pile up, and what is opened too late is closed."""
    monkeypatch.setattr(debug_files, "_LIMIT_S", 0.05)
    _make(tmp_path / "bin" / "p.debug")
    released, late = threading.Event(), []

    def hanging(_: str) -> int:
        released.wait(20)
        late.append(os.open(tmp_path / "bin" / "p.debug", os.O_RDONLY))
        return late[-1]

    monkeypatch.setattr(debug_files, "open_below", lambda root, name: hanging(name))
    monkeypatch.setattr(debug_files, "open_regular", hanging)

    async def run() -> None:
        finder = DebugFiles([str(tmp_path)])
        for _ in range(debug_files._MOST_WAITING + 3):
            async with finder.beside(os.getpid(), str(tmp_path / "bin" / "p"), _info(build_id="")) as files:
                assert files == []
        hung = [thread for thread in threading.enumerate() if thread.name == "debug files"]
        assert len(hung) == debug_files._MOST_WAITING
        released.set()
        for thread in hung:
            await asyncio.to_thread(thread.join, 10)
        assert finder._waiting == 0

    asyncio.run(run())
    assert len(late) >= debug_files._MOST_WAITING
    for fd in late:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
