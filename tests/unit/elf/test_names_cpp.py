"""Which C++ function a name means."""

from __future__ import annotations

import time

import pytest
from support import elf_images

from coral.elf import names
from coral.elf.program import Program
from coral.elf.symbols import Function, SymbolTable
from coral.model.addresses import Vaddr
from coral.model.errors import AmbiguousName, FailedPrecondition, NotFound

_STRING = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
# As GCC 12 and Clang 14 write them. What is static is in lower.cpp.
_GLOBAL = (
    *("_ZN5ShapeC1Ei", "_ZN5ShapeC2Ei", "_ZN5ShapeD0Ev", "_ZN5ShapeD1Ev", "_ZN5ShapeD2Ev", "_ZThn16_N5ShapeD1Ev"),
    *("_ZNK5Shape4areaEv", "_ZN5Shape4areaEi", "_ZN4shop5Shape5printEv", "_ZN6Square5printEv", "_ZThn16_N6Square5printEv"),
    *("_Z4overi", "_Z4overd", "_Z5greetRK" + _STRING, "_ZN4shop5storeEmj", "_ZN4shop7versionB5cxx11Ev"),
    *("_ZN4shop5StackIiE4pushERKi", "_ZN4shop5StackI" + _STRING + "E4pushERKS6_", "_ZN4shop5StackIiE4pushEOi"),
    *("_ZN4shop5StackI" + _STRING + "E4pushEOS6_", "_ZN4shop5StackIiE3popEv", "_ZN4shop5StackI" + _STRING + "E3popEv"),
    *("_ZN4shop7convertIidEET_T0_", "_ZN4shop7convertIdiEET_T0_", "_ZNSt6vectorIiSaIiEE9push_backEOi"),
    *("_ZNK2FnclEi", "_ZN2FnixEi", "_ZlsRSoRK5Shape", "_ZNK5ShapecvbEv", "_ZNK5Shapecv" + _STRING + "Ev", "_ZN5ShapeaSEOS_"),
    *("_ZZ4mainENKUliE_clEi", "_ZZ4mainENKUliE0_clEi", "_ZZN4shop4openEiENKUlvE_clEv", "_ZZ4sortvENK3$_0clEi"),
    *(
        "_ZN4shop4workEi.resume",
        "_ZN4shop4workEi.destroy",
        "_ZN4shop4workEi",
        "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE6appendEPKc",
    ),
    *(
        "_ZN4shop4emitIJiEEEvDpOT_",
        "_ZN4shop4emitIJidEEEvDpOT_",
        "_Z5twiceIiEvT_",
        "_Z5twiceIiEvT_i.constprop.0",
        "_ZN4shop4goneEv.part.0",
    ),
    *("_Z6pickeri.llvm.111", "_Z6pickeri.llvm.222", "plain", "_Zbroken", "_ZN4shop4whenEPFviE"),
    *("_ZN2FncmEl", "_ZN2FncmEPKcl", "_Z7größei"),
)
_STATIC = ("_ZN12_GLOBAL__N_16hiddenEi", "_ZN4shop12_GLOBAL__N_14Cart3addEi", "_ZL6lonelyi")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """An image with functions of all those names, and two files with a static function of one name."""
    folder = tmp_path_factory.mktemp("names")
    sources = {
        "upper.s": '.file "upper.cpp"\n' + _functions(("_ZL6sharedi",), ".local") + _functions(_GLOBAL, ".globl"),
        "lower.s": '.file "lower.cpp"\n' + _functions((*_STATIC, "_ZL6sharedi"), ".local"),
    }
    for name, text in sources.items():
        (folder / name).write_text(f".text\n{text}")
    path = elf_images.gcc(folder / "names.so", folder / "upper.s", str(folder / "lower.s"), "-shared", "-nostdlib")
    return elf_images.program(path)


def _functions(symbols: tuple[str, ...], binding: str) -> str:
    return "".join(f'{binding} "{each}"\n.type "{each}", @function\n"{each}": ret\n.size "{each}", 1\n' for each in symbols)


_PUSH = "_ZN4shop5StackIiE4pushE"


@pytest.mark.parametrize(
    ("text", "name", "functions"),
    [
        ("Shape::area(int)", "Shape::area(int)", ["_ZN5Shape4areaEi"]),
        ("area() const", "Shape::area() const", ["_ZNK5Shape4areaEv"]),
        ("area()", "Shape::area() const", ["_ZNK5Shape4areaEv"]),
        ("shop::Shape::print", "shop::Shape::print", ["_ZN4shop5Shape5printEv"]),
        ("Square::print", "Square::print", ["_ZN6Square5printEv", "_ZThn16_N6Square5printEv"]),
        ("over( double )", "over(double)", ["_Z4overd"]),
        ("greet", "greet", ["_Z5greetRK" + _STRING]),
        ("greet(std::string const&)", "greet", ["_Z5greetRK" + _STRING]),
        ("greet(const string &)", "greet", ["_Z5greetRK" + _STRING]),
        ("greet(const std::__cxx11::basic_string<char>&)", "greet", ["_Z5greetRK" + _STRING]),
        ("store(size_t, unsigned)", "shop::store", ["_ZN4shop5storeEmj"]),
        ("shop::store(unsigned long int, uint32_t)", "shop::store", ["_ZN4shop5storeEmj"]),
        ("version", "shop::version", ["_ZN4shop7versionB5cxx11Ev"]),
        ("version[abi:cxx11]()", "shop::version", ["_ZN4shop7versionB5cxx11Ev"]),
        ("Shape::Shape", "Shape::Shape", ["_ZN5ShapeC1Ei", "_ZN5ShapeC2Ei"]),
        ("~Shape", "Shape::~Shape", ["_ZN5ShapeD0Ev", "_ZN5ShapeD1Ev", "_ZN5ShapeD2Ev", "_ZThn16_N5ShapeD1Ev"]),
        ("_ZN5ShapeC2Ei", "Shape::Shape", ["_ZN5ShapeC2Ei"]),
        ("Stack::pop", "shop::Stack::pop", ["_ZN4shop5StackI" + _STRING + "E3popEv", "_ZN4shop5StackIiE3popEv"]),
        ("Stack<T>::pop", "shop::Stack::pop", ["_ZN4shop5StackI" + _STRING + "E3popEv", "_ZN4shop5StackIiE3popEv"]),
        ("Stack<int>::pop", "shop::Stack<int>::pop", ["_ZN4shop5StackIiE3popEv"]),
        ("Stack< std::string >::pop", "shop::Stack<std::string>::pop", ["_ZN4shop5StackI" + _STRING + "E3popEv"]),
        ("Stack<int>::push(int&&)", "shop::Stack<int>::push(int&&)", [_PUSH + "Oi"]),
        ("convert", "shop::convert", ["_ZN4shop7convertIdiEET_T0_", "_ZN4shop7convertIidEET_T0_"]),
        ("convert<int>", "shop::convert<int, double>", ["_ZN4shop7convertIidEET_T0_"]),
        ("int shop::convert<int, double>(double)", "shop::convert<int, double>", ["_ZN4shop7convertIidEET_T0_"]),
        ("emit", "shop::emit", ["_ZN4shop4emitIJiEEEvDpOT_", "_ZN4shop4emitIJidEEEvDpOT_"]),
        ("vector<int>::push_back", "std::vector<int, std::allocator<int>>::push_back", ["_ZNSt6vectorIiSaIiEE9push_backEOi"]),
        ("std::string::append", "std::string::append", [f"_Z{_STRING[:-1]}6appendEPKc"]),
        ("basic_string<char>::append", "std::string::append", [f"_Z{_STRING[:-1]}6appendEPKc"]),
        ("Fn::operator()", "Fn::operator()", ["_ZNK2FnclEi"]),
        ("operator []", "Fn::operator[]", ["_ZN2FnixEi"]),
        ("operator<<", "operator<<", ["_ZlsRSoRK5Shape"]),
        ("Fn::operator,(long)", "Fn::operator,(long)", ["_ZN2FncmEl"]),
        ("operator , (char const * , long)", "Fn::operator,(char const*, long)", ["_ZN2FncmEPKcl"]),
        ("größe(int)", "größe", ["_Z7größei"]),
        ("operator<<(std::ostream&, Shape const&)", "operator<<", ["_ZlsRSoRK5Shape"]),
        ("Shape::operator=", "Shape::operator=", ["_ZN5ShapeaSEOS_"]),
        ("operator bool", "Shape::operator bool", ["_ZNK5ShapecvbEv"]),
        ("Shape::operator std::string() const", "Shape::operator std::string", ["_ZNK5Shapecv" + _STRING + "Ev"]),
        ("main::{lambda(int)#1}::operator()", "main::{lambda(int)#1}::operator()", ["_ZZ4mainENKUliE_clEi"]),
        ("main()::{lambda(int)#2}::operator()(int) const", "main::{lambda(int)#2}::operator()", ["_ZZ4mainENKUliE0_clEi"]),
        ("main::'lambda'(int)::operator()(int) const", "main::{lambda(int)#1}::operator()", ["_ZZ4mainENKUliE_clEi"]),
        ("open(int)::{lambda()#1}::operator()", "shop::open::{lambda()#1}::operator()", ["_ZZN4shop4openEiENKUlvE_clEv"]),
        ("sort::$_0::operator()", "sort::$_0::operator()", ["_ZZ4sortvENK3$_0clEi"]),
        ("hidden", "(anonymous namespace)::hidden", ["_ZN12_GLOBAL__N_16hiddenEi"]),
        ("(anonymous namespace)::hidden(int)", "(anonymous namespace)::hidden", ["_ZN12_GLOBAL__N_16hiddenEi"]),
        ("shop::Cart::add", "shop::(anonymous namespace)::Cart::add", ["_ZN4shop12_GLOBAL__N_14Cart3addEi"]),
        ("lonely", "lonely", ["_ZL6lonelyi"]),
        ("lower.cpp:shared", "shared", ["_ZL6sharedi"]),
        ("upper.cpp:shared(int)", "shared", ["_ZL6sharedi"]),
        ("shop::work", "shop::work", ["_ZN4shop4workEi"]),
        ("work.resume", "shop::work.resume", ["_ZN4shop4workEi.resume"]),
        ("when(void (*)(int))", "shop::when", ["_ZN4shop4whenEPFviE"]),
        ("_Z6pickeri.llvm.222", "picker", ["_Z6pickeri.llvm.222"]),
        ("plain", "plain", ["plain"]),
        ("_Zbroken", "_Zbroken", ["_Zbroken"]),
    ],
)
def test_a_name_means_a_function(image: Program, text: str, name: str, functions: list[str]) -> None:
    """Namespaces, parameters, template arguments and the long names of std::string may be left out; instances are one."""
    match = names.find(image.symbols, text, "shop")
    assert (match.name, sorted(function.name for function in match.functions)) == (name, functions)


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("area", ["Shape::area(int)", "Shape::area() const"]),
        ("over", ["over(double)", "over(int)"]),
        ("print", ["Square::print", "shop::Shape::print"]),
        ("Stack<int>::push", ["shop::Stack<int>::push(int const&)", "shop::Stack<int>::push(int&&)"]),
        ("shared", ["lower.cpp:shared", "upper.cpp:shared"]),
        ("picker", ["_Z6pickeri.llvm.111", "_Z6pickeri.llvm.222"]),
        ("{lambda(int)}::operator()", ["main::{lambda(int)#1}::operator()", "main::{lambda(int)#2}::operator()"]),
    ],
)
def test_several_functions_are_listed_by_what_to_type(image: Program, text: str, choices: list[str]) -> None:
    """Overloads have their parameters, static namesakes their file; each choice means one function."""
    with pytest.raises(AmbiguousName) as caught:
        names.find(image.symbols, text, "shop")
    assert sorted(caught.value.details["candidates"].splitlines()) == sorted(choices)
    found = [names.find(image.symbols, choice, "shop").functions for choice in choices]
    assert len(set(found)) == len(choices)


def test_wrong_parameters_are_answered_with_those_that_there_are(image: Program) -> None:
    """A function of that name but with other parameters comes first among the nearest."""
    with pytest.raises(NotFound) as caught:
        names.find(image.symbols, "greet(int)", "shop")
    assert caught.value.details["nearest"].splitlines()[0] == "greet(std::string const&)"
    with pytest.raises(NotFound) as caught:
        names.find(image.symbols, "Shape::aera", "shop")
    assert caught.value.details["nearest"].splitlines()[0] == "Shape::area"


def test_what_was_split_off_is_no_function_of_its_own(image: Program) -> None:
    """Of a function that was inlined but for a part, calls cannot be counted, and that is said by its source name too."""
    with pytest.raises(FailedPrecondition, match=r"'shop::gone' was inlined into its callers in shop"):
        names.find(image.symbols, "shop::gone", "shop")


def test_every_function_is_listed_by_a_name_that_means_it(image: Program) -> None:
    """What the list calls a function finds exactly that function again, or a choice that has it."""
    listed = names.all_functions(image.symbols)
    addresses = [function.vaddr for match in listed for function in match.functions]
    assert len(addresses) == len(set(addresses)) == len(_GLOBAL) + len(_STATIC) + 2 - 1  # a part is none
    for match in listed:
        try:
            assert names.find(image.symbols, match.name, "shop").functions == match.functions
        except AmbiguousName as error:
            assert match.symbol in ("_ZL6sharedi", "_Z6pickeri.llvm.111", "_Z6pickeri.llvm.222"), error.message


def test_a_name_is_found_among_100_000_in_a_moment() -> None:
    """Only symbols that can be meant are demangled: an index and a search take a fraction of what all of them would."""
    table = SymbolTable()
    symbols = [f"_ZN4shop{len(f'Class{number % 997}')}Class{number % 997}7work{number:03}Ei" for number in range(1000)]
    symbols += [f"_ZN4shop5Class{len(f'method{number}')}method{number}ERKSsi" for number in range(99_000)]
    functions = (Function(name=name, vaddr=Vaddr(16 * index), size_bytes=8) for index, name in enumerate(symbols, 1))
    table.add_functions("test", functions)
    start = time.process_time()
    assert names.find(table, "Class::method77777", "shop").symbol == symbols[78_777]
    assert names.find(table, "shop::Class::method77778(std::string const&, int)", "shop").symbol == symbols[78_778]
    assert time.process_time() - start < 2
