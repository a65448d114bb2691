"""Compiles the decode step: `python trainer/native/build.py`. It needs a C compiler, and of Python only the library."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

SOURCE = Path(__file__).with_name("step.c")
FLAGS = ["-O3", "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"]
FLAGS.append("-ffp-contract=off")  # bits are equal on all CPUs only if no product is contracted with a sum
LEVELS = ("x86-64", "x86-64-v3", "x86-64-v4")
"""Names of the levels of a CPU; their numbers are those in `step.c`."""


def main() -> int:
    problem = build(SOURCE.parent)
    if problem:
        sys.stderr.write(f"{problem}\n")
    return 1 if problem else 0


def build(folder: Path, options: Sequence[str] = ()) -> str | None:
    """Compile `step.so` in a folder, for all levels of this machine's kind of CPU; return a sentence if it fails."""
    command = compiler()
    if command is None:
        return "There is no C compiler: install gcc or clang, or the Python package ziglang."
    with TemporaryDirectory(dir=folder) as temporary:
        failed = _compile(command, Path(temporary), options)
        if failed is not None:
            return f"{command[0]} cannot compile {SOURCE.name}: {failed.stderr.strip()[-500:]}"
        (Path(temporary) / "step.so").replace(folder / "step.so")
    return None


def compiler() -> list[str] | None:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name.split()
    return [sys.executable, "-P", "-m", "ziglang", "cc"] if find_spec("ziglang") else None


def _compile(program: list[str], folder: Path, options: Sequence[str]) -> "subprocess.CompletedProcess[str] | None":
    """Compile an object per level, then link them; return the first command that failed."""
    is_zig = "ziglang" in program
    levels = LEVELS if platform.machine().lower() in ("x86_64", "amd64") else ()
    oldest = ["-mmacosx-version-min=11.0"] if sys.platform == "darwin" else []
    objects: list[str] = []
    commands: list[list[str]] = []
    for number, level in enumerate(levels or ("baseline",)):
        target = f"-mcpu={level.replace('-', '_')}" if is_zig else f"-march={level}"
        objects.append(str(folder / f"{number}.o"))
        flags = [*FLAGS, *oldest, *options, f"-DLEVEL={number}", *([target] if levels or is_zig else [])]
        commands.append([*program, *flags, "-c", str(SOURCE), "-o", objects[-1]])
    commands.append([*program, "-shared", *oldest, *options, *objects, "-o", str(folder / "step.so")])
    results = (subprocess.run(command, capture_output=True, text=True, check=False) for command in commands)
    return next((result for result in results if result.returncode), None)


if __name__ == "__main__":
    raise SystemExit(main())
