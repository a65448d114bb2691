"""docs/generating.md: its commands run, and it names every field of a request."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, environment_in, mt
from tests.support.lab import running_worker
from tests.support.waiting import PATIENCE_SECONDS
from trainer.artifacts.runs import RunStore
from trainer.contracts.inference import GenerateRequest

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "generating.md").read_text(encoding="utf-8")


def test_commands_of_the_page__run(tmp_path: Path) -> None:
    found: list[str] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    training, *asking = [line for block in found for line in block.splitlines()]
    assert mt(tmp_path, *shlex.split(training)[1:]).returncode == 0
    [run] = RunStore(tmp_path / "artifacts").all()
    with running_worker(tmp_path):
        for line in asking:
            typed, bar, command = line.rpartition(" | ")
            words = [run.run_id if word == "RUN" else word for word in shlex.split(command)[1:]]
            done = subprocess.run(
                [sys.executable, "-m", "trainer", *words],
                cwd=tmp_path,
                env=environment_in(tmp_path),
                input=typed,
                capture_output=True,
                text=True,
                timeout=PATIENCE_SECONDS,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout and bool(typed) == bool(bar)


def test_page__names_every_field_of_a_request() -> None:
    assert [name for name in GenerateRequest.model_fields if f"`{name}`" not in PAGE and f"`{name} " not in PAGE] == [
        "prompt_path"
    ]
