"""All that the code of a function is called, in all the ways in which it can be written."""

from __future__ import annotations

from pathlib import Path

from support import elf_images

_RUST = "_ZN4shop3pay17h0123456789abcdefE"


def _code(*names: str) -> str:
    """Assembly of one function that has several names."""
    declared = "".join(f'.globl "{name}"\n.type "{name}", @function\n' for name in names)
    labels = "".join(f'"{name}":\n' for name in names)
    sizes = "".join(f'.size "{name}", .-"{name}"\n' for name in names)
    return f".text\n{declared}{labels} push %rbx\n pop %rbx\n ret\n{sizes}"


def test_each_function_that_shares_the_code_is_told_in_all_ways(tmp_path: Path) -> None:
    """An alias, a folded function and a clone are there; ways of writing one function are together, other functions apart."""
    code = _code("_ZN4shop3MapIiE3getEi", "_ZN4shop3MapIlE3getEl.constprop.0", _RUST, "plain")
    plan = elf_images.plan_of(elf_images.assembly(tmp_path, code), "plain")
    assert {frozenset(ways) for ways in plan.called} == {
        frozenset({
            "_ZN4shop3MapIiE3getEi", "shop::Map<int>::get(int)", "shop::Map<int>::get", "shop::Map::get",
        }),
        frozenset({
            "_ZN4shop3MapIlE3getEl.constprop.0", "_ZN4shop3MapIlE3getEl",
            "shop::Map<long>::get(long)", "shop::Map<long>::get", "shop::Map::get",
        }),
        frozenset({_RUST, "shop::pay", "shop::pay::h0123456789abcdef"}),
        frozenset({"plain"}),
    }  # fmt: skip
    assert plan.called[0] == ("plain",)
    assert plan.all_called


def test_a_static_function_is_told_with_its_file(tmp_path: Path) -> None:
    """FILE:NAME is a way of writing it."""
    code = _code("work").replace('.globl "work"\n', '.file "dup_a.c"\n')
    plan = elf_images.plan_of(elf_images.assembly(tmp_path, code), "work")
    assert plan.called == (("dup_a.c:work", "work"),)


def test_go_names_are_told_as_people_write_them(tmp_path: Path) -> None:
    """Without shapes, and without type arguments."""
    plan = elf_images.plan_of(elf_images.assembly(tmp_path, _code("main.Map[go.shape.int_0,go.shape.string]")), "main.Map")
    (ways,) = plan.called
    assert set(ways) == {"main.Map[go.shape.int_0,go.shape.string]", "main.Map[int,string]", "main.Map"}


def test_of_too_many_names_it_is_said_that_they_are_not_all(tmp_path: Path) -> None:
    """So that whoever goes by names can refuse what cannot be known by all of them."""
    plan = elf_images.plan_of(elf_images.assembly(tmp_path, _code(*(f"alias_{number}" for number in range(4100)))), "alias_1")
    assert not plan.all_called
    assert len(plan.names) <= 4_100
