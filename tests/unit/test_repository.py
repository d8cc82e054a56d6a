"""The repository keeps its own promises: targets that say what they do, pinned dependencies, links that lead somewhere."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path for path in (ROOT / "src").rglob("*.py") if "_generated" not in path.parts)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").glob("*.md")])


def test_every_make_target_is_documented() -> None:
    """``make help`` lists each target that can be asked for, with what it does."""
    makefile = (ROOT / "Makefile").read_text()
    asked = {name for line in re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE) for name in line.split()}
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make (\S+) +\S", listed, re.MULTILINE)) == asked
    assert subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout == listed


def test_scripts_parse_and_can_be_run() -> None:
    """The shell scripts are executable and bash can read them."""
    for script in (ROOT / "scripts" / "bootstrap.sh", ROOT / ".ci" / "run"):
        assert script.stat().st_mode & 0o111
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_every_dependency_is_pinned_exactly() -> None:
    """What is installed depends on nothing but the checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["build-system"]["requires"],
        *(one for group in project["dependency-groups"].values() for one in group),
    ]
    assert [
        one for one in wanted if not re.fullmatch(r"[\w-]+(\[\w+\])?==[\w.]+(; python_version [<>]=? '[\d.]+')?", one)
    ] == []


def test_notice_names_every_locked_package() -> None:
    """NOTICE says under which licence each dependency comes, and names none that is not one."""
    locked = {package["name"] for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    listing = (ROOT / "NOTICE").read_text().partition("at run time\n")[2]
    # A line is `    LICENCE        name (remark), name, ...`; further lines of names are indented as far.
    names = re.sub(r"^    .{15}|\([^()]*\)|^  \S.*$", "", listing, flags=re.MULTILINE)
    named = {re.sub(r"[-_.]+", "-", name.strip()).lower() for name in re.split(r"[,\n]", names) if name.strip()}
    assert named - locked == {"types-*", "libbpf"}
    unnamed = {name for name in locked - named if not name.startswith("types-")}
    assert unnamed == {"coral-debugger", "colorama"}  # itself, and what only Windows would install


def test_bpf_source_says_its_licence() -> None:
    """The kernel's helpers need a GPL-compatible licence, which the source states and LICENSES holds."""
    for source in (ROOT / "src" / "coral" / "kernel").glob("*.bpf.c"):
        assert source.read_text().startswith("// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause\n")
    texts = {path.name for path in (ROOT / "LICENSES").iterdir()}
    assert texts == {"Apache-2.0.txt", "BSD-2-Clause.txt", "GPL-2.0-only.txt"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_one_thing(module: Path) -> None:
    """A module has a name that says what it is, opens with what it does, and is of a size that can be read."""
    assert module.stem not in {"utils", "util", "helpers", "manager", "common", "misc"}
    text = module.read_text()
    assert text.startswith(('"""', 'r"""'))
    assert text.count("\n") <= 500


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Each relative link of a document names a file that exists, and a heading in it if it says so."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_exist(document: Path) -> None:
    """Each ``make`` command that a document shows is a target that ``make help`` lists."""
    listed = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = re.findall(r"(?:^|`)make((?: [a-z-]+)+)(?:`|$)", document.read_text(), re.MULTILINE)
    assert {name for names in shown for name in names.split()} <= set(listed)


def test_decisions_have_the_parts_of_the_template() -> None:
    """A decision says its state, what made it necessary, what was decided and what follows."""
    for page in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert headings[:3] == ["Context", "Decision", "Consequences"], page.name
        number = "NNNN" if page.name.startswith("0000") else page.name[:4]
        assert page.read_text().startswith(f"# {number}: "), page.name


def test_decisions_have_numbers_of_their_own() -> None:
    """Every decision carries the number of its file, and no other has it."""
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    numbers = [page.name.partition("-")[0] for page in pages]
    assert numbers == [f"{number:04}" for number in range(len(pages))]
    for number, page in zip(numbers[1:], pages[1:], strict=True):
        assert page.read_text().startswith(f"# {number}: "), page.name
