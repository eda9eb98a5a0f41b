"""The system's C compiler: which one, what vectors its target has, and objects kept on disk."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from towtank.kernels.errors import KernelError
from towtank.kernels.store import cache_folder

COMPILERS = ("cc", "gcc", "clang")
"""Tried in this order after the one that CC names."""
_FLAGS = ("-O3", "-fPIC", "-shared", "-pthread", "-std=gnu11")
_NATIVE = ("-march=native", "-mcpu=native")
"""For this very CPU: x86 and newer ARM compilers take the first, POWER and older ARM ones the second."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the compiler generates code for."""

    compiler: str
    version: str
    native: str
    """Its option for the CPU at hand."""
    vector_floats: int
    registers: int
    """Vector registers that code can name."""


def find() -> str | None:
    """Path of the compiler; None where there is none."""
    named = os.environ.get("CC")
    for name in (named,) if named else COMPILERS:
        if (path := shutil.which(name)) is not None:
            return path
    return None


def not_found() -> str:
    """What to tell whoever needs a compiler where `find` finds none."""
    if named := os.environ.get("CC"):
        return f"the C compiler that CC names was not found: {named}; correct CC, or unset it to use cc, gcc or clang"
    return f"no C compiler was found ({', '.join(COMPILERS)}); install gcc or clang, or name one by CC=/path/to/cc"


@cache
def target(compiler: str) -> Target:
    """What a compiler makes for this CPU, from its own macros.

    Raises:
        KernelError: it cannot be run, or cannot compile for this CPU.
    """
    version = _run([compiler, "--version"]).partition("\n")[0]
    if not version:
        raise KernelError(f"{compiler} is no C compiler: it does not tell its version; correct CC")
    failures = []
    for native in _NATIVE:
        try:
            macros = _run([compiler, native, "-dM", "-E", "-x", "c", os.devnull])
        except KernelError as error:
            failures.append(str(error))
            continue
        # 512-bit vectors come with 32 registers, 256-bit ones with 16; NEON and VSX have 32 of 128 bits
        for macro, floats, registers in (("__AVX512F__", 16, 32), ("__AVX__", 8, 16), ("__x86_64__", 4, 16)):
            if f"#define {macro} 1" in macros:
                return Target(compiler, version, native, floats, registers)
        return Target(compiler, version, native, 4, 32)
    raise KernelError(failures[-1])


def here() -> Target:
    """The target of the compiler at hand.

    Raises:
        KernelError: there is no compiler, or it cannot be used.
    """
    compiler = find()
    if compiler is None:
        raise KernelError(not_found())
    return target(compiler)


def build(source: str) -> ctypes.CDLL:
    """Compile a C file and load it; an object made before is taken from the cache folder.

    The key holds all that the object depends on: source, flags, compiler's version and the CPU it is made for.

    Raises:
        KernelError: there is no compiler, it rejects the source, or the object cannot be kept.
    """
    at = here()
    flags = (*_FLAGS, at.native)
    text = "\0".join((source, at.compiler, at.version, *flags, _processor()))
    folder = cache_folder() / "objects"
    made = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.so"
    try:
        if not made.exists():
            _make(source, [at.compiler, *flags], made)
        return ctypes.CDLL(str(made))
    except OSError as error:
        raise KernelError(
            f"the compiled multiply cannot be kept in {folder}: {error.strerror or error}; name a folder that can be "
            "written by TOWTANK_CACHE"
        ) from error


def _make(source: str, command: list[str], made: Path) -> None:
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as work:
        code, object_file = Path(work, "kernel.c"), Path(work, "kernel.so")
        code.write_text(source, "utf-8")
        _run([*command, str(code), "-o", str(object_file)])
        os.replace(object_file, made)  # in one step: another process sees all of it or nothing


@cache
def _processor() -> str:
    """Name and abilities of the CPU; objects in a shared home must not move to another kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return " ".join(os.uname())
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features", "cpu\t"))]
    return "\n".join(dict.fromkeys(kept))


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise KernelError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise KernelError(f"{command[0]} failed: {first}")
    return done.stdout
