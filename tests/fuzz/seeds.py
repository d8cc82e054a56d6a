"""The intact images that mutants are made of: small, and with every table that Coral reads."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.build import PROGRAMS, ROOT

_BUILD = ROOT / "build" / "fuzz"
_SECTION_HEADERS_AT = 40  # e_shoff of Elf64_Ehdr
_CPP = """
#include <stdexcept>
#include <vector>
#include <string>
namespace shop {
struct Shape { virtual ~Shape(); virtual int area(int n) const; int sides; };
Shape::~Shape() { sides = 0; }
struct Guard { int *at; ~Guard(); };
Guard::~Guard() { *at += 1; }
int Shape::area(int n) const {
  int count = 0;
  Guard guard{&count};
  try { if (n > 3) throw std::runtime_error("large"); return n * sides; }
  catch (const std::runtime_error &error) { return std::string(error.what()).size() + count; }
}
template <class T> T sum(const std::vector<T> &values) { T total{}; for (auto &value : values) total += value; return total; }
}
extern "C" int switched(int n) {
  switch (n) { case 0: return 7; case 1: return 19; case 2: return shop::sum<int>({n}); case 3: return 3; case 4: return 90;
    case 5: return n * 17; default: return shop::sum<double>({1.5 * n}); }
}
int main(int argc, char **argv) { shop::Shape shape; return shape.area(argc) + switched(argc); }
"""
_RUST = """
use std::panic;
struct Stack<T> { items: Vec<T> }
impl<T: Clone> Stack<T> {
    #[inline(never)] fn push(&mut self, item: T) -> usize { self.items.push(item); self.items.len() }
}
#[inline(never)] fn risky(n: usize) -> usize { if n > 2 { panic!("large") } else { n * 3 } }
fn main() {
    let mut stack = Stack { items: vec![1] };
    let n = std::env::args().count();
    println!("{} {:?}", stack.push(n), panic::catch_unwind(|| risky(n)));
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """An intact image.

    Attributes:
        name: What it is.
        content: Its bytes.
        functions: Some that it has.
        debug: A file with its symbols, which .gnu_debuglink names; empty when there is none.
        weight: How often it is taken, in relation to the others; large files are slow to read.
    """

    name: str
    content: bytes
    functions: tuple[str, ...]
    debug: bytes = b""
    weight: int = 10


def seeds(*, quick: bool = False) -> list[Seed]:
    """All of them; with ``quick`` those that are built in a second."""
    c, cpp = ("switched", "leaf", "tail", "with_alloca"), ("shop::Shape::area", "shop::sum", "switched", "main")
    go, rust = ("main.main", "fmt.Println", "runtime.mallocgc", "runtime.gopanic"), ("risky", "Stack<T>::push", "main")
    found = [
        Seed(name="c", content=_c("c", "-O2", "-g"), functions=c),
        Seed(name="c, fixed address", content=_c("c-nopie", "-O1", "-no-pie"), functions=c),
        Seed(name="c, stripped", content=_c("c-stripped", "-O2", "-s", "-rdynamic"), functions=c),
        Seed(
            name="c, no section headers", content=_without_sections(_c("c-stripped", "-O2", "-s", "-rdynamic")), functions=c
        ),
        Seed(name="c, MiniDebugInfo", content=_mini_debug(), functions=c),
        _linked(c),
        Seed(name="c++", content=_cpp("cpp", "-O2"), functions=cpp, weight=20),
        Seed(name="c++, library, CET", content=_cpp("cpp.so", "-O1", "-shared", "-fPIC", "-fcf-protection"), functions=cpp),
    ]
    if quick:
        return found
    found += [
        Seed(name="c, static", content=_c("c-static", "-O2", "-static"), functions=(*c, "printf", "memcpy"), weight=2),
        Seed(name="go", content=_go("go"), functions=go, weight=2),
        Seed(name="go, stripped", content=_go("go-stripped", "-ldflags=-s -w"), functions=go, weight=2),
        Seed(name="go, PIE", content=_go("go-pie", "-buildmode=pie", "-ldflags=-w"), functions=go, weight=1),
    ]
    rustc = shutil.which("rustc") or shutil.which("rustc", path=Path.home() / ".cargo" / "bin")
    if rustc is not None:
        release = (rustc, "-C", "strip=debuginfo", "-C", "opt-level=2", "-C", "symbol-mangling-version=v0")
        found.append(Seed(name="rust", content=_rust("rust", release), functions=rust, weight=2))
        legacy = (rustc, "-C", "strip=debuginfo", "-C", "opt-level=1")
        found.append(Seed(name="rust, legacy names", content=_rust("rust-legacy", legacy), functions=rust, weight=1))
    return found


def names() -> list[str]:
    """Mangled names of C++ and Rust, and what looks like them."""
    return [
        "_ZN4shop5Shape4areaEi",
        "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE9_M_mutateEmmPKcm",
        "_ZZ4mainENKUlT_E0_clIiEEDaS_",
        "_ZNKSt8functionIFivEEclEv",
        "_ZN12_GLOBAL__N_11fEv",
        "_ZTv0_n24_N4shop5ShapeD1Ev",
        "_ZN3fooILi5ELb1EXadL_Z3barvEEE1xEv",
        "_ZSt4moveIRiEONSt16remove_referenceIT_E4typeEOS2_",
        "_ZN4core3ptr85drop_in_place$LT$std..rt..lang_start$LT$$LP$$RP$$GT$..$u7b$$u7b$closure$u7d$$u7d$$GT$17h0123456789abcdefE",
        "_RNvMs_Cs4fqI2P2rA04_11example_modINtB4_5StackpE4push",
        "_RINvNtCs9ltgdHTiPiY_4core3ptr13drop_in_placeNtNtCs1_5alloc6string6StringE",
        "_RNCNvCs1_4main4main0B3_",
        "main.(*Server[go.shape.int]).Serve-fm",
        "f.constprop.0.isra.0.cold",
        "shop::Shape::area(int) const [clone .part.0]",
    ]


def _c(name: str, *flags: str) -> bytes:
    return _built(
        name, (PROGRAMS / "elf" / "shapes.c").read_bytes(), ".c", lambda at, to: ("gcc", "-w", "-o", to, at, *flags)
    )


def _cpp(name: str, *flags: str) -> bytes:
    return _built(name, _CPP.encode(), ".cpp", lambda at, to: ("g++", "-w", "-std=c++17", "-o", to, at, *flags))


def _rust(name: str, command: tuple[str, ...]) -> bytes:
    return _built(name, _RUST.encode(), ".rs", lambda at, to: (*command, "--crate-name", "risky", "-o", to, at))


def _go(name: str, *flags: str) -> bytes:
    source = (
        b'package main\n\nimport "fmt"\n\nfunc main() { defer func() { fmt.Println(recover()) }(); panic("on purpose") }\n'
    )
    go = str(ROOT / ".venv" / "bin" / "go")
    return _built(name, source, ".go", lambda at, to: (go, "build", "-trimpath", *flags, "-o", to, at))


def _mini_debug() -> bytes:
    """Symbols that the loader does not need, packed into the image itself, as Fedora does."""
    whole = _c("c-whole", "-O2")
    with _files() as folder:
        (folder / "whole").write_bytes(whole)
        _run("objcopy", "--only-keep-debug", str(folder / "whole"), str(folder / "debug"))
        (folder / "packed").write_bytes(lzma.compress((folder / "debug").read_bytes()))
        _run("strip", "-o", str(folder / "bare"), str(folder / "whole"))
        _run("objcopy", "--add-section", f".gnu_debugdata={folder / 'packed'}", str(folder / "bare"), str(folder / "mini"))
        return (folder / "mini").read_bytes()


def _linked(functions: tuple[str, ...]) -> Seed:
    """An image and the file that has its symbols, as Debian keeps them."""
    with _files() as folder:
        (folder / "whole").write_bytes(_c("c-whole", "-O2"))
        _run("objcopy", "--only-keep-debug", str(folder / "whole"), str(folder / "image.debug"))
        link = f"--add-gnu-debuglink={folder / 'image.debug'}"
        _run("objcopy", "--strip-all", link, str(folder / "whole"), str(folder / "image"))
        content, debug = (folder / "image").read_bytes(), (folder / "image.debug").read_bytes()
    return Seed(name="c, symbols beside it", content=content, functions=functions, debug=debug)


def _without_sections(content: bytes) -> bytes:
    without = bytearray(content)
    without[_SECTION_HEADERS_AT : _SECTION_HEADERS_AT + 8] = bytes(8)
    without[58:64] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    return bytes(without)


def _built(name: str, source: bytes, suffix: str, command: Callable[[str, str], tuple[str, ...]]) -> bytes:
    """The output of a compiler, kept by source and command."""
    digest = hashlib.sha256(source + repr(command("", "")).encode()).hexdigest()[:16]
    kept = _BUILD / f"{name}-{digest}"
    if not kept.exists():
        with _files() as folder:
            at, to = folder / f"source{suffix}", folder / "output"
            at.write_bytes(source)
            _run(*command(str(at), str(to)))
            to.replace(kept)
    return kept.read_bytes()


@contextmanager
def _files() -> Iterator[Path]:
    folder = _BUILD / f"work-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _run(*command: str) -> None:
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0", "GO111MODULE": "off"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=240)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
