"""The library of the decode step: compiled by the machine's compiler, and searched for errors by sanitizers."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from trainer.native import build
from trainer.native.library import LEVELS, load

pytestmark = pytest.mark.process

SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
TESTS = "tests/unit/models/test_compiled_steps.py"
PROGRAM = f"""
import pathlib, sys, pytest
from trainer.native import library
library.LIBRARY = pathlib.Path(sys.argv[1])
sys.exit(pytest.main(["-q", "-p", "no:xdist", "-p", "no:cacheprovider", {TESTS!r}]))
"""


@pytest.mark.slow
def test_library__has_the_levels_of_this_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SOURCE", Path(shutil.copy(build.SOURCE, tmp_path)))
    if build.main():
        pytest.skip("there is no C compiler")
    names = tuple(each.name for each in load(tmp_path / "step.so"))
    assert names == LEVELS[: len(names)] and names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step.c", "step.so"]


def test_library__that_is_missing_has_no_levels(tmp_path: Path) -> None:
    assert load(tmp_path / "step.so") == ()


def test_build__says_why_there_is_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'no such option' >&2\nexit 1\n")
    compiler.chmod(0o700)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(SystemExit, match="1"):
        runpy.run_path(build.__file__, run_name="__main__")
    assert capsys.readouterr().err == f"{compiler} cannot compile step.c: no such option\n"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("CC")
    monkeypatch.setattr(build, "find_spec", {}.get)
    assert build.build(tmp_path) == "There is no C compiler: install gcc or clang, or the Python package ziglang."
    monkeypatch.setattr(build, "find_spec", {"ziglang": "found"}.get)
    assert build.compiler() == [sys.executable, "-P", "-m", "ziglang", "cc"]


@pytest.mark.slow
def test_step__has_no_wrong_access_and_no_undefined_behaviour(tmp_path: Path) -> None:
    if build.build(tmp_path, SANITIZED) is not None:
        pytest.skip("there is no C compiler with sanitizers")
    command: list[str] = [*(build.compiler() or []), "-print-file-name=libasan.so"]
    runtime = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(runtime).is_absolute():
        pytest.skip("the compiler has no library of the address sanitizer to load first")
    environment = {**os.environ, "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}  # Python leaks at its end
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "step.so")]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
