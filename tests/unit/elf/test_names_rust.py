"""Which Rust function a name means, in both of Rust's ways to mangle."""

from __future__ import annotations

import pytest
from support import elf_images

from coral.elf import names
from coral.elf.program import Program
from coral.model.errors import AmbiguousName, NotFound

# As rustc 1.95 writes them; the crate is n.
_V0 = {
    "greet": "_RNvCs5JNAybJ9MVI_1n5greet",
    "Foo::new": "_RNvMs_NtCs5JNAybJ9MVI_1n4shopNtB4_3Foo3new",
    "Foo::other": "_RNvMNtNtCs5JNAybJ9MVI_1n4shop5innerNtB4_3Foo5other",
    "Foo as Trait": "_RNvXNtCs5JNAybJ9MVI_1n4shopNtB2_3FooNtB2_5Trait6method",
    "[u8] as Trait": "_RNvXs2_NtCs5JNAybJ9MVI_1n4shopShNtB5_5Trait6method",
    "i64 as Trait": "_RNvXs_NtNtCs5JNAybJ9MVI_1n4shop5innerxNtB6_5Trait6method",
    "Stack<i32>": "_RNvMs0_NtCs5JNAybJ9MVI_1n4shopINtB5_5StacklE4pushB7_",
    "Stack<u8>": "_RNvMs0_NtCs5JNAybJ9MVI_1n4shopINtB5_5StackhE4pushB7_",
    "generic<&str>": "_RINvNtCs5JNAybJ9MVI_1n4shop7genericReEB4_",
    "generic<i32>": "_RINvNtCs5JNAybJ9MVI_1n4shop7genericlEB4_",
    "closure 0": "_RNCNvCs5JNAybJ9MVI_1n4main0B3_",
    "closure 1": "_RNCNvCs5JNAybJ9MVI_1n4mains_0B3_",
    "copy 1": "_RNvCs5JNAybJ9MVI_1n6shared.llvm.6522134581562071959",
    "copy 2": "_RNvCs5JNAybJ9MVI_1n6shared.llvm.3651559467013962347",
}
_LEGACY = {
    "greet": "_ZN1n5greet17he1f487a046dc0f7aE",
    "Foo::new": "_ZN1n4shop3Foo3new17hcef24a3298ef8337E",
    "Foo::other": "_ZN1n4shop5inner30_$LT$impl$u20$n..shop..Foo$GT$5other17h4b143d64e93078efE",
    "Foo as Trait": "_ZN47_$LT$n..shop..Foo$u20$as$u20$n..shop..Trait$GT$6method17hb90778bc2b5982abE",
    "[u8] as Trait": "_ZN47_$LT$$u5b$u8$u5d$$u20$as$u20$n..shop..Trait$GT$6method17h5b7cbcb89f807ac3E",
    "i64 as Trait": "_ZN1n4shop5inner48_$LT$impl$u20$n..shop..Trait$u20$for$u20$i64$GT$6method17h0402306155bc10efE",
    "Stack<T> 1": "_ZN1n4shop14Stack$LT$T$GT$4push17h800acd5c54e3e72eE",
    "Stack<T> 2": "_ZN1n4shop14Stack$LT$T$GT$4push17hf50d8c5c4fe7fe82E",
    "generic 1": "_ZN1n4shop7generic17hacb7094b10d0f2ddE",
    "generic 2": "_ZN1n4shop7generic17hf04524bfdb70443eE",
    "closure 1": "_ZN1n4main28_$u7b$$u7b$closure$u7d$$u7d$17h6f73281bb4e9ed34E",
    "closure 2": "_ZN1n4main28_$u7b$$u7b$closure$u7d$$u7d$17h899270f61d14bb1fE",
    "once": "_ZN4core3ops8function6FnOnce9call_once17h5675a9452126bdefE",
    "shim": "_ZN4core3ops8function6FnOnce40call_once$u7b$$u7b$vtable.shim$u7d$$u7d$17h2953981234b7cb67E",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Program]:
    """An image for each way to mangle."""
    folder = tmp_path_factory.mktemp("names")
    made = {}
    for name, symbols in (("v0", _V0), ("legacy", _LEGACY)):
        text = "".join(
            f'.globl "{each}"\n.type "{each}", @function\n"{each}": ret\n.size "{each}", 1\n' for each in symbols.values()
        )
        made[name] = elf_images.program(elf_images.gcc(folder / f"{name}.so", f".text\n{text}", "-shared", "-nostdlib"))
    return made


@pytest.mark.parametrize(
    ("scheme", "text", "name", "keys"),
    [
        *(
            (scheme, text, name, keys)
            for scheme in ("v0", "legacy")
            for text, name, keys in (
                ("greet", "n::greet", ["greet"]),
                ("n::greet()", "n::greet", ["greet"]),
                ("Foo::new", "n::shop::Foo::new", ["Foo::new"]),
                ("Foo::other", "n::shop::Foo::other", ["Foo::other"]),
                ("Foo::method", "<n::shop::Foo as n::shop::Trait>::method", ["Foo as Trait"]),
                ("<Foo as Trait>::method", "<n::shop::Foo as n::shop::Trait>::method", ["Foo as Trait"]),
                ("<n::shop::Foo as n::shop::Trait>::method", "<n::shop::Foo as n::shop::Trait>::method", ["Foo as Trait"]),
                ("<[u8] as Trait>::method", "<[u8] as n::shop::Trait>::method", ["[u8] as Trait"]),
                ("i64::method", "<i64 as n::shop::Trait>::method", ["i64 as Trait"]),
            )
        ),
        ("v0", "Stack::push", "n::shop::Stack::push", ["Stack<i32>", "Stack<u8>"]),
        ("v0", "Stack<T>::push", "n::shop::Stack::push", ["Stack<i32>", "Stack<u8>"]),
        ("v0", "<n::shop::Stack<i32>>::push", "n::shop::Stack<i32>::push", ["Stack<i32>"]),
        ("v0", "generic", "n::shop::generic", ["generic<&str>", "generic<i32>"]),
        ("v0", "generic::<&str>", "n::shop::generic<&str>", ["generic<&str>"]),
        ("v0", "main::{closure#1}", "n::main::{closure#1}", ["closure 1"]),
        ("v0", "shared", "n::shared", ["copy 1", "copy 2"]),
        ("v0", _V0["greet"], "n::greet", ["greet"]),
        ("legacy", "Stack::push", "n::shop::Stack::push", ["Stack<T> 1", "Stack<T> 2"]),
        ("legacy", "n::shop::Stack<T>::push", "n::shop::Stack<T>::push", ["Stack<T> 1", "Stack<T> 2"]),
        ("legacy", "generic", "n::shop::generic", ["generic 1", "generic 2"]),
        ("legacy", "generic::hf04524bfdb70443e", "n::shop::generic", ["generic 2"]),
        ("legacy", "main::{{closure}}::h899270f61d14bb1f", "n::main::{{closure}}", ["closure 2"]),
        ("legacy", "FnOnce::call_once", "core::ops::function::FnOnce::call_once", ["once"]),
        ("legacy", "FnOnce::call_once{{vtable.shim}}", "core::ops::function::FnOnce::call_once::{{vtable.shim}}", ["shim"]),
    ],
)
def test_a_name_means_a_function(images: dict[str, Program], scheme: str, text: str, name: str, keys: list[str]) -> None:
    """Crates, modules, traits, hashes and type arguments may be left out; instances and copies of one generic are one."""
    symbols = _V0 if scheme == "v0" else _LEGACY
    match = names.find(images[scheme].symbols, text, "n")
    assert (match.name, match.language) == (name, "rust")
    assert {function.name for function in match.functions} == {symbols[key] for key in keys}


@pytest.mark.parametrize(
    ("scheme", "text", "choices"),
    [
        ("v0", "main::{{closure}}", ["n::main::{closure#0}", "n::main::{closure#1}"]),
        (
            "legacy",
            "main::{{closure}}",
            [f"n::main::{{{{closure}}}}::{each}" for each in ("h6f73281bb4e9ed34", "h899270f61d14bb1f")],
        ),
        *(
            (scheme, "Trait::method", [f"<{each} as n::shop::Trait>::method" for each in ("[u8]", "i64", "n::shop::Foo")])
            for scheme in ("v0", "legacy")
        ),
    ],
)
def test_several_functions_are_listed_by_what_to_type(
    images: dict[str, Program], scheme: str, text: str, choices: list[str]
) -> None:
    """Closures of one function, and implementations of one trait, are functions of their own."""
    with pytest.raises(AmbiguousName) as caught:
        names.find(images[scheme].symbols, text, "n")
    assert caught.value.details["candidates"].splitlines() == choices
    assert len({names.find(images[scheme].symbols, choice, "n").functions for choice in choices}) == len(choices)


def test_an_unknown_instance_is_answered_with_the_generic(images: dict[str, Program]) -> None:
    """Legacy symbols do not say what a generic was made for, so that cannot be asked for."""
    with pytest.raises(NotFound) as caught:
        names.find(images["legacy"].symbols, "Stack<i32>::push", "n")
    assert caught.value.details["nearest"].splitlines()[0] == "n::shop::Stack<T>::push"


@pytest.mark.parametrize("scheme", ["v0", "legacy"])
def test_every_function_is_listed_by_a_name_that_means_it(images: dict[str, Program], scheme: str) -> None:
    """What the list calls a function finds it again: alone, with its other instances, or among choices."""
    for match in names.all_functions(images[scheme].symbols):
        try:
            found = names.find(images[scheme].symbols, match.demangled, "n")
        except AmbiguousName as error:
            assert "closure" in match.demangled, error.message
        else:
            assert set(match.functions) <= set(found.functions)
