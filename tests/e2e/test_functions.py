"""``coral function list`` and ``coral debug info``: what they say is what an attach then does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import build
from support.large_program import large_program
from support.stack import Stack
from support.target import Target, running, unique_service
from support.text import changed_text

from coral.client.colony import ColonyClient
from coral.wire._generated.colony.v1 import inspect_pb2

pytestmark = pytest.mark.kernel

FUNCTIONS = 50_000  # half of what the benchmark has: seconds count here

ITEM = ["name", "demangled", "library", "language", "probeable", "reason", "exact", "image_id", "path"]
EXPLANATION = ["service_name", "function_name", "images", "skipped", "warnings"]
IMAGE = [
    "name", "probeable", "reason", "hint", "image_id", "build_id", "path", "library", "language", "language_version",
    "symbol_sources", "notes", "method", "pairing", "addresses", "sites", "hosts",
]  # fmt: skip
ADDRESS = ["vaddr", "file_offset", "size_bytes", "symbol", "source_file", "also_named"]
SITE = ["offset", "vaddr", "kind", "instruction", "emulated", "conditional", "to", "reason"]
HOST = ["agent_id", "instances", "call_cost_ns", "trap_cost_ns", "cost_unavailable"]


@pytest.fixture(scope="module")
def refused() -> Iterator[Target]:
    """A program with functions that cannot be probed, or not fully; nothing here may touch it."""
    with running(build.c_program("refused")) as process:
        yield process
        assert changed_text(process.pid) == []


def listed(stack: Stack, *arguments: str) -> list[dict[str, Any]]:
    """The items of a list."""
    items: list[dict[str, Any]] = stack.cli.ok("function", "list", *arguments, "-o", "json").json()["items"]
    return items


def test_every_function_says_whether_it_can_be_probed(stack: Stack, refused: Target) -> None:
    """Each item has the promised keys, and the verdict that an attach would come to."""
    items = {item["name"]: item for item in listed(stack, refused.service)}
    assert [list(item) for item in items.values()] == [ITEM] * len(items)
    assert all(item["exact"] for item in items.values())
    verdicts = {name: (items[name]["probeable"], items[name]["reason"]) for name in ("report", "jumps_anywhere")}
    assert verdicts["report"] == ("yes", "")
    assert verdicts["jumps_anywhere"][0] == "partly"
    assert "indirect jump" in verdicts["jumps_anywhere"][1]
    assert (items["loops_to_start"]["probeable"], items["loops_to_start"]["reason"]) == (
        "no",
        "jumps back to its first instruction",
    )
    assert {item["path"] for item in items.values()} == {str(Path(f"/proc/{refused.pid}/exe").readlink())}
    for name in ("loops_to_start", "jumps_anywhere"):
        outcome = stack.cli.run("debug", "attach", refused.service, "-f", name, "-d", "1s", "-o", "json")
        assert (outcome.exit_code == 0) == (name == "jumps_anywhere")
        assert items[name]["reason"] in outcome.stdout + outcome.stderr


def test_patterns_limits_and_pages(stack: Stack, refused: Target) -> None:
    """A pattern narrows a list, a limit cuts it, and its token goes on exactly there, in the same query only."""
    names = [item["name"] for item in listed(stack, refused.service)]
    assert [item["name"] for item in listed(stack, refused.service, "loops_to")] == ["loops_to_start"]
    assert [item["name"] for item in listed(stack, refused.service, "jumps_*")] == ["jumps_anywhere"]
    assert listed(stack, refused.service, "LOOPS_TO") == []
    first = stack.cli.ok("function", "list", refused.service, "--limit", "3", "-o", "json").json()
    token = first["next_page_token"]
    rest = stack.cli.ok("function", "list", refused.service, "--page-token", token, "-o", "json").json()
    assert [item["name"] for item in first["items"] + rest["items"]] == names
    assert rest["next_page_token"] is None
    other = stack.cli.run("function", "list", refused.service, "work", "--page-token", token, "-o", "json")
    assert (other.exit_code, other.error()["code"]) == (2, "INVALID_ARGUMENT")
    lines = stack.cli.ok("function", "list", refused.service, "--all", "-o", "jsonl").jsonl()
    assert [line["name"] for line in lines] == names


def test_a_table_for_people(stack: Stack, refused: Target) -> None:
    """The table has the names on stdout; what was left out is said on stderr."""
    outcome = stack.cli.ok("function", "list", refused.service, "--limit", "2")
    lines = outcome.stdout.splitlines()
    assert lines[0].split() == ["NAME", "LANGUAGE", "PROBEABLE", "REASON"]
    assert len(lines) == 3
    assert "more than these 2 functions" in outcome.stderr
    nothing = stack.cli.ok("function", "list", refused.service, "oops_to*")
    assert (nothing.stdout, "whole name" in nothing.stderr) == ("", True)


def test_libraries_when_asked_for(stack: Stack, refused: Target) -> None:
    """Loaded libraries are listed when they are named or asked for, and then only what is loaded."""
    items = listed(stack, refused.service, "libc.so.6!mallo")
    assert "malloc" in [item["name"] for item in items]
    assert {item["library"] for item in items} == {"libc.so.6"}
    assert listed(stack, refused.service, "mallo", "--library", "libc.so.6") == items
    everywhere = {(item["library"], item["name"]) for item in listed(stack, refused.service, "l", "--libraries", "--all")}
    assert {("", "loops_to_start"), ("libc.so.6", "malloc")} <= everywhere
    missing = stack.cli.run("function", "list", refused.service, "--library", "libnone.so", "-o", "json")
    assert (missing.exit_code, missing.error()["code"]) == (3, "NOT_FOUND")
    assert "libnone.so" in missing.error()["message"]


def test_different_builds_of_a_service_are_shown_apart(stack: Stack) -> None:
    """Two builds under one name give each function once for each, and copies of one build give it once."""
    service = unique_service("builds")
    plain, other = build.c_program("loop"), build.c_program("loop", "-O0")
    with running(plain, service=service), running(plain, service=service), running(other, service=service):
        items = listed(stack, service, "work")
        explained = stack.cli.ok("debug", "info", service, "-f", "work", "-o", "json").json()
    assert [item["name"] for item in items] == ["work", "work"]
    assert len({item["image_id"] for item in items}) == 2
    assert {image["path"]: image["hosts"][0]["instances"] for image in explained["images"]} == {str(plain): 2, str(other): 1}


def test_debug_info_tells_what_an_attach_does(stack: Stack) -> None:
    """Image, sites and method of the explanation are those of the session, and nothing is attached by asking."""
    with running(build.c_program("loop"), "--calls", 100) as target:
        document = stack.cli.ok("debug", "info", target.service, "-f", "work", "-o", "json").json()
        assert changed_text(target.pid) == []
        session = stack.cli.attach(target.service, "work")
        text = stack.cli.ok("debug", "info", target.service, "-f", "work").stdout
        session = stack.cli.stop(session["session_id"])
    assert list(document) == EXPLANATION
    (image,) = document["images"]
    (address,) = image["addresses"]
    (host,) = image["hosts"]
    assert [list(part) for part in (image, address, host)] == [IMAGE, ADDRESS, HOST]
    assert [list(site) for site in image["sites"]] == [SITE] * len(image["sites"])
    (instance,) = session["collectors"][0]["instances"]
    assert (image["image_id"], image["method"], image["probeable"]) == (instance["image_id"], instance["method"], "yes")
    assert [{name: site[name] for name in ("offset", "kind", "reason")} for site in image["sites"]] == instance["sites"]
    assert {site["instruction"].split()[0] for site in image["sites"] if site["kind"] == "return"} == {"ret"}
    assert address["symbol"] == "work"
    assert host["agent_id"] == session["collectors"][0]["agent_id"]
    assert ".symtab" in image["symbol_sources"]
    for site in image["sites"]:
        assert f"{site['vaddr']:#x}" in text
        assert site["instruction"] in text


def test_the_forecast_is_of_this_host(stack: Stack, refused: Target) -> None:
    """A call costs what its entry and one exit cost, as measured with real probes on this host."""
    document = stack.cli.ok("debug", "info", refused.service, "-f", "report", "-o", "json").json()
    (host,) = document["images"][0]["hosts"]
    trap, call = host["trap_cost_ns"], host["call_cost_ns"]
    assert 100 < trap["emulated"] < 1_000_000
    assert 100 < trap["stepped"] < 1_000_000
    sites = document["images"][0]["sites"]
    price = {True: trap["emulated"], False: trap["stepped"]}
    entries = [price[site["emulated"]] for site in sites if site["kind"] == "entry"]
    exits = [price[site["emulated"]] + trap["pairing"] for site in sites if site["kind"] != "entry"]
    assert call == {"lowest": min(entries) + min(exits), "highest": max(entries) + max(exits)}


def test_why_not(stack: Stack, refused: Target) -> None:
    """A function that would be refused is explained with the reason and a next step; that is an answer, not a failure."""
    (image,) = stack.cli.ok("debug", "info", refused.service, "-f", "loops_to_start", "-o", "json").json()["images"]
    assert (image["probeable"], image["reason"], image["method"], image["sites"]) == (
        "no",
        "jumps back to its first instruction",
        "",
        [],
    )
    assert image["hint"]
    assert image["addresses"][0]["symbol"] == "loops_to_start"
    assert image["hosts"][0]["call_cost_ns"] is None
    (image,) = stack.cli.ok("debug", "info", refused.service, "-f", "jumps_anywhere", "-o", "json").json()["images"]
    assert (image["probeable"], image["method"], [site["kind"] for site in image["sites"]]) == (
        "partly",
        "entry_only",
        ["entry"],
    )
    assert "caller" in image["hint"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        (("function", "list", "no-such-service"), 3, "NOT_FOUND"),
        (("debug", "info", "no-such-service", "-f", "work"), 3, "NOT_FOUND"),
        (("debug", "info", "{service}", "-f", "jumps_anywher"), 3, "NOT_FOUND"),
        (("debug", "info", "{service}", "-f", "libnone.so!work"), 3, "NOT_FOUND"),
        (("debug", "info", "{service}", "-f", "libc.so.6!"), 2, "INVALID_ARGUMENT"),
        (("function", "list", "{service}", "libc.so.6!x", "--library", "libm.so.6"), 2, "INVALID_ARGUMENT"),
        (("function", "list", "{service}", "a\tb"), 2, "INVALID_ARGUMENT"),
        (("function", "list", "{service}", "--limit", "-1"), 2, "INVALID_ARGUMENT"),
    ],
)
def test_what_cannot_be_answered(
    stack: Stack, refused: Target, arguments: tuple[str, ...], exit_code: int, code: str
) -> None:
    """A wrong name or value is told as everywhere: status, exit code, and what to do."""
    line = [argument.replace("{service}", refused.service) for argument in arguments]
    outcome = stack.cli.run(*line, "-o", "json")
    assert (outcome.exit_code, outcome.error()["code"], outcome.stdout) == (exit_code, code, "")
    assert outcome.error()["message"]
    if "jumps_anywher" in arguments:
        assert "jumps_anywhere" in outcome.error()["hint"]


def test_both_are_in_the_audit_log(stack: Stack, refused: Target) -> None:
    """Who listed the functions of which service, and who asked about which function."""
    service = unique_service("nobody")
    stack.cli.ok("function", "list", refused.service, "some_pattern")
    stack.cli.ok("debug", "info", refused.service, "-f", "report")
    stack.cli.run("function", "list", service)
    rows = stack.cli.query(
        "SELECT action, service_name, function_name, reason, decision, outcome FROM audit_log "
        f"WHERE service_name IN ('{refused.service}', '{service}') AND action IN ('ListFunctions', 'ExplainFunction') "
        "AND outcome <> 'started' "
        "ORDER BY sequence DESC LIMIT 3"
    )
    assert [tuple(row.values()) for row in reversed(rows)] == [
        ("ListFunctions", refused.service, "", "some_pattern", "allow", "ok"),
        ("ExplainFunction", refused.service, "report", "", "allow", "ok"),
        ("ListFunctions", service, "", "", "error", "NOT_FOUND"),
    ]


@contextmanager
def large(folder: Path) -> Iterator[str]:
    """A service of a program with many functions."""
    service = unique_service("large")
    process = subprocess.Popen(
        [large_program(folder, functions=FUNCTIONS, data_bytes=40_000_000)], env={**os.environ, "CORAL_SERVICE": service}
    )
    try:
        yield service
    finally:
        process.kill()
        process.wait()


def test_a_large_program(stack: Stack, tmp_path: Path) -> None:
    """50,000 functions in 50 MB are listed, narrowed and explained without anybody waiting long, again at once."""
    with large(tmp_path) as service:
        (first_s, page), (again_s, again) = asyncio.run(listed_twice(stack.colony, service))
        items = listed(stack, service, "step499")
        everything = stack.cli.ok("function", "list", service, "--all", "-o", "jsonl").stdout.count("\n")
    assert again == page
    assert page.images[0].matches >= FUNCTIONS
    assert len(page.images[0].functions.name) == 1000
    assert everything == page.images[0].matches
    numbers = [499, *range(4990, 5_000), *range(49_900, 50_000)]
    assert {item["demangled"] for item in items} == {f"shop::module{n // 1000}::step{n}(int)" for n in numbers}
    assert {item["reason"] for item in items} == {""}
    assert {item["probeable"] for item in items} == {"yes"}
    print(f"listed in {first_s:.2f} s, again in {again_s:.3f} s")
    # Ten times what an idle machine takes; `python -m bench --only functions` has the figures.
    assert first_s < 30
    assert again_s < 2


async def listed_twice(colony: str, service: str) -> list[tuple[float, inspect_pb2.ListFunctionsResponse]]:
    """The first page of a list, asked for twice, and how long each took."""
    answers = []
    async with ColonyClient(colony) as client:
        deadline_s = time.monotonic() + 10
        while not await client.services(service):
            assert time.monotonic() < deadline_s
        for _ in range(2):
            begun_s = time.monotonic()
            page = await client.functions(inspect_pb2.ListFunctionsRequest(service_name=service))
            answers.append((time.monotonic() - begun_s, page))
    return answers
