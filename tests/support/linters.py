"""Programs of this environment that check files."""

import subprocess
import sys
from pathlib import Path

from tests.support import ROOT


def lint(program: str, *words: str | Path) -> str:
    """Run a program of this environment and return its output; fails with the output if the program refuses."""
    command = [Path(sys.executable).with_name(program), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
