"""Compiles the ground-truth programs, once for each set of sources, flags and compiler.

What is handed out is a copy of this run's own: breakpoints are in files, and a second run of the tests on the same ones would
find those of the first.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"
BUILD = ROOT / "build" / "tests"


def c_program(name: str, *flags: str, strip: bool = False) -> Path:
    """The executable of ``programs/c/NAME.c``.

    Args:
        name: Base name of the source.
        flags: For gcc, after ``-O2``, so that they can take it back.
        strip: Whether symbols that the loader does not need are taken out.
    """
    return _gcc(name, (*flags, "-pthread"), strip=strip)


def musl_program(name: str, *flags: str) -> Path:
    """The executable of ``programs/c/NAME.c`` for musl, the C library of Alpine, with a loader and a libc of its own."""
    return _gcc(name, (*flags, "-pthread"), compiler="musl-gcc")


def c_program_32(name: str) -> Path:
    """The executable of ``programs/c/NAME.c``, which needs no library, for the 32-bit mode of the same machine."""
    return _gcc(name, ("-m32", "-ffreestanding", "-nostdlib", "-static", "-fno-stack-protector"))


def c_library(name: str) -> Path:
    """The shared library of ``programs/c/NAME.c``, called ``libNAME.so``."""
    return _gcc(name, ("-shared", "-fPIC"), output=f"lib{name}.so")


def c_user_of(library: Path, name: str) -> Path:
    """The executable of ``programs/c/NAME.c``, linked with ``library``, beside which it is put and where it finds it."""
    program = _gcc(name, (f"-L{BUILD / library.parent.name}", f"-l:{library.name}", "-Wl,-rpath,$ORIGIN"))
    beside = library.parent / program.name
    if not beside.exists():
        shutil.copy2(program, beside)
    return beside


def cpp_program(name: str, *flags: str, compiler: str = "g++") -> Path:
    """The executable of ``programs/cpp/NAME.cpp``.

    Args:
        name: Base name of the source.
        flags: For the compiler.
        compiler: ``g++`` or ``clang++``.
    """
    found = _tool(compiler, "g++ (the Debian package of that name)" if compiler == "g++" else "clang")
    source = PROGRAMS / "cpp" / f"{name}.cpp"
    target = _place([source, PROGRAMS / "c" / "truth.h"], (*flags, compiler, _version(found))) / name
    before = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-pthread"]
    return _once(target, [found, *before, "-o", "{output}", str(source), *flags], cwd=source.parent, env=dict(os.environ))


def rust_program(name: str, *flags: str) -> Path:
    """The executable of ``programs/rust/NAME.rs``.

    Args:
        name: Base name of the source.
        flags: For rustc.
    """
    rustc = _tool("rustc", "rustc", beside=Path.home() / ".cargo" / "bin")
    source = PROGRAMS / "rust" / f"{name}.rs"
    target = _place([source], (*flags, _version(rustc))) / name
    command = [rustc, "--edition", "2021", "-D", "warnings", "-o", "{output}", *flags, str(source)]
    return _once(target, command, cwd=source.parent, env=dict(os.environ))


def go_program(package: str) -> Path:
    """The executable of the package ``programs/go/PACKAGE``."""
    module = PROGRAMS / "go"
    go = _go()
    sources = [module / "go.mod", *sorted((module / package).glob("*.go"))]
    version = subprocess.run([go, "version"], check=True, capture_output=True, text=True).stdout
    output = _place(sources, (version,)) / package
    command = [go, "build", "-o", "{output}", f"./{package}"]
    return _once(output, command, cwd=module, env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": ""})


def go_package(
    module: Path,
    name: str,
    *,
    flags: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    root: Path | None = None,
    strip: bool = False,
) -> Path:
    """The executable of the package ``MODULE/NAME``, built in some way.

    Args:
        module: Where its go.mod is.
        name: Of the package.
        flags: Of ``go build``.
        env: Further variables.
        root: GOROOT of the Go that builds it; that of the environment if None.
        strip: Whether ``strip`` runs over it.
    """
    go = str(root / "bin" / "go") if root is not None else _go()
    version = subprocess.run([go, "version"], check=True, capture_output=True, text=True).stdout
    sources = [module / "go.mod", *sorted(path for path in (module / name).iterdir() if path.is_file())]
    variables = {"GOTOOLCHAIN": "local", "GOFLAGS": "", **(env or {}), **({"GOROOT": str(root)} if root is not None else {})}
    output = _place(sources, (version, *flags, *map(str, sorted(variables.items())), str(strip))) / name
    command = [go, "build", *flags, "-o", "{output}", f"./{name}"]
    after = ["strip", "{output}"] if strip else []
    return _once(output, command, after, cwd=module, env={**os.environ, **variables})


def grpcurl() -> Path:
    """The real grpcurl, built from the Go module proxy once and kept."""
    output = BUILD / "grpcurl-v1.9.3" / "grpcurl"
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        _run(
            [_go(), "install", "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"],
            cwd=ROOT,
            env={**os.environ, "GOBIN": str(output.parent), "GOFLAGS": "", "CGO_ENABLED": "0"},
            timeout_s=280,
        )
    return output


def _tool(name: str, package: str, *, beside: Path | None = None) -> str:
    """The path of a compiler."""
    found = shutil.which(name) or (shutil.which(name, path=str(beside)) if beside is not None else None)
    if found is None:
        raise RuntimeError(f"There is no {name}: install {package} (`make test` does, as root).")
    return found


@functools.cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True).stdout


def _go() -> str:
    for candidate in (ROOT / ".venv" / "bin" / "go", shutil.which("go")):
        if candidate and Path(candidate).exists():
            return str(candidate)
    raise RuntimeError("There is no Go compiler: `make test` installs one into .venv (the `go` group of pyproject.toml).")


def _gcc(name: str, flags: Sequence[str], *, output: str = "", strip: bool = False, compiler: str = "gcc") -> Path:
    source = PROGRAMS / "c" / f"{name}.c"
    gcc = shutil.which(compiler)
    if gcc is None:
        raise RuntimeError(f"There is no {compiler}: install gcc, libc6-dev and musl-tools (`make test` does, as root).")
    version = subprocess.run([gcc, "--version"], check=True, capture_output=True, text=True).stdout
    sources = [source, PROGRAMS / "c" / "truth.h"]
    target = _place(sources, (*flags, str(strip), compiler, version)) / (output or name)
    before, after = ["-Wall", "-Wextra", "-Werror", "-O2", "-fexceptions"], list(flags)
    command = [gcc, *before, "-o", "{output}", str(source), *after, *(["-s"] if strip else [])]
    return _once(target, command, cwd=source.parent, env=dict(os.environ))


@functools.cache
def _own_folder() -> Path:
    """Where the copies of this run are; gone at its end."""
    folder = Path(tempfile.mkdtemp(prefix="coral-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _own_copy(built: Path) -> Path:
    copy = _own_folder() / built.parent.name / built.name
    copy.parent.mkdir(exist_ok=True)
    shutil.copy2(built, copy)
    return copy


def _place(sources: Sequence[Path], facts: Sequence[str]) -> Path:
    digest = hashlib.sha256("\0".join(facts).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return BUILD / digest.hexdigest()[:16]


def _once(output: Path, command: Sequence[str], after: Sequence[str] = (), *, cwd: Path, env: dict[str, str]) -> Path:
    """Runs ``command`` and ``after`` unless the output is there; returns this run's copy. No run sees a half-written file."""
    if output.exists():
        return _own_copy(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        made = Path(scratch) / output.name
        for step in filter(None, (command, after)):
            _run([part.replace("{output}", str(made)) for part in step], cwd=cwd, env=env, timeout_s=600)
        made.replace(output)
    return _own_copy(output)


def _run(command: Sequence[str], *, cwd: Path, env: dict[str, str], timeout_s: float) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
