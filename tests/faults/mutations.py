"""Switches one safeguard after the other off, in a copy of the source: a test has to turn red (`make mutations`).

`mutations.txt` has a block for each: the safeguard, a file (and how often the text is in it), the text with `-`, what
replaces it with `+`, and the test that should notice. The tests have to pass without any mutation.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tests.faults import driver
from tests.support import ROOT

_ALL_SECONDS, _SOME_SECONDS = 3600.0, 1200.0
_PATIENCE = "PATIENCE_SECONDS = 300.0", "PATIENCE_SECONDS = 60.0"
"""What the copy changes, since a test that waits in vain for what a safeguard would bring has noticed sooner then."""
_FAILED, _PASSED = 1, 0


class Mutation(NamedTuple):
    """One safeguard that is switched off, and the test that should notice."""

    safeguard: str
    path: str
    times: int
    """Number of times that `old` occurs in the file; all of them are replaced."""
    old: str
    new: str
    test: str

    def applied(self, source: str) -> str:
        """The source with the safeguard off; raises ValueError where its text does not stand there as often."""
        if (count := source.count(self.old)) != self.times:
            raise ValueError(f"{self.path} has {self.old!r} {count} times, not {self.times}.")
        return source.replace(self.old, self.new)


def mutations() -> list[Mutation]:
    blocks = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").strip().split("\n\n")
    return [_read(block.splitlines()) for block in blocks]


def _read(lines: Sequence[str]) -> Mutation:
    title, place, *text, test = lines
    path, _, times = place.partition(" ")
    old, new = ("\n".join(line[1:] for line in text if line[0] == sign) for sign in "-+")
    return Mutation(title.removeprefix("# "), path, int(times or 1), old, new, test)


def _hold(folder: Path, numbers: Mapping[str, float], console: Console) -> bool:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    waiting = folder / "tests" / "support" / "waiting.py"
    waiting.write_text(waiting.read_text(encoding="utf-8").replace(*_PATIENCE), encoding="utf-8")
    if _run(folder, sorted({one.test for one in mutations()}), _ALL_SECONDS) != _PASSED:
        console.print((folder / "pytest.log").read_text(encoding="utf-8"), markup=False)
        console.print("The tests fail already without any mutation.", style="bold red")
        return False
    unnoticed = 0
    for mutation in mutations():
        begin = time.monotonic()
        file = folder / mutation.path
        source = file.read_text(encoding="utf-8")
        file.write_text(mutation.applied(source), encoding="utf-8")
        is_noticed = _run(folder, [mutation.test], _SOME_SECONDS) == _FAILED
        file.write_text(source, encoding="utf-8")
        unnoticed += not is_noticed
        words = (
            f"{'noticed' if is_noticed else 'NOT NOTICED':>11} {time.monotonic() - begin:4.0f} s  {mutation.safeguard}"
        )
        console.print(words, style="green" if is_noticed else "bold red", markup=False, highlight=False)
    return unnoticed == 0


def _run(copy: Path, tests: Sequence[str], seconds: float) -> int:
    """pytest's exit code for some tests of a copy; one that hangs has failed."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    with (copy / "pytest.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=copy, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return _FAILED
    finally:
        with suppress(ProcessLookupError):  # nothing that it has started is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


KIT = driver.Kit(_hold)
