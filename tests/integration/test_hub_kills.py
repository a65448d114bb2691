"""A push whose process is killed at any request, and repeated, ends as one that nobody has disturbed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.support import environment_in
from tests.support.finished_runs import finished_run
from tests.support.hub_models import Answer, Models
from tests.support.hub_runs import NAME, TOKEN, add_steps, hub_environment
from tests.support.hub_server import Hub, running_hub

_PROGRAM = """\
import contextlib, os, sys
from trainer.commands.main import main
with contextlib.redirect_stdout(sys.stderr):  # imports all modules once, and not in every process
    main(sys.argv[1:])
for line in sys.stdin:
    process = os.fork()
    if process == 0:
        print(os.getpid(), flush=True)
        os._exit(main(line.split()))
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
"""Runs each line of its input as a command in a process of its own; prints the process, and how it has ended."""


class Typist:
    """Types commands that are processes."""

    def __init__(self, typed: IO[str], printed: IO[str]) -> None:
        self._typed, self._printed = typed, printed
        self.process_id = 0

    def type(self, *words: str) -> int:
        """Run a command in a process; return its exit code, or the negative number of the signal that has ended it."""
        self._typed.write(" ".join(words) + "\n")
        self._typed.flush()
        self.process_id = int(self._printed.readline())
        line = self._printed.readline()
        while not line.strip().lstrip("-").isdigit():  # of the command
            line = self._printed.readline()
        return int(line)


@contextmanager
def typist(folder: Path, hub: Hub, *first: str) -> Iterator[Typist]:
    """Run a first command without a process of its own, then those that are typed."""
    environment = environment_in(folder, **hub_environment(hub, folder), HF_TOKEN=TOKEN, LOGGING__LEVEL="DEBUG")
    with (folder / "errors.log").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *first],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with process:
            assert process.stdin is not None and process.stdout is not None
            yield Typist(process.stdin, process.stdout)


def histories(hub: Hub) -> dict[str, list[Mapping[str, bytes]]]:
    """The files of each branch after each of its commits."""
    repository = hub.models.repositories.get(NAME)
    return {} if repository is None else {branch: repository.history(branch) for branch in repository.branches}


@pytest.mark.slow
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_push_repeated_after_a_kill__has_the_result_of_an_uninterrupted_one(is_done: bool, tmp_path: Path) -> None:
    run = finished_run(tmp_path, "gru")
    add_steps(run, 500)
    plan = ("push", run.run_id, NAME)
    words = (*plan, "--yes", "--license", "mit")
    with running_hub(tmp_path / "hub", TOKEN) as hub, typist(tmp_path, hub, *plan) as terminal:
        assert terminal.type(*words) == 0
        whole, count = histories(hub), len(hub.requests)
        assert count > 10
        for number in range(1, count + 1):
            hub.models = Models()
            hub.requests.clear()

            def kill(at: int, done: bool, number: int = number) -> Answer | None:
                if (at, done) != (number, is_done):
                    return None
                os.kill(terminal.process_id, signal.SIGKILL)
                return Answer(423)

            hub.watch = kill
            assert terminal.type(*words) == -signal.SIGKILL
            for branch, history in histories(hub).items():
                assert history[-1].keys() in ({".gitattributes"}, whole[branch][-1].keys())
            hub.watch = lambda at, done: None
            assert terminal.type(*words) == 0
            assert histories(hub) == whole
    assert TOKEN not in (tmp_path / "errors.log").read_text(encoding="utf-8")
