"""Sockets of processes where the path of the folder for temporary files is too long for them, as on clusters."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import ROOT, settings_in
from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.services.health import Finding, check_data
from trainer.system import sockets
from trainer.system.sockets import socket_folder

_FORK = """
import multiprocessing
from trainer.system.sockets import shorten_process_sockets
shorten_process_sockets()
process = multiprocessing.get_context("forkserver").Process(target=print, args=("It runs.",))
process.start()
process.join()
"""


def long_folder(folder: Path) -> Path:
    """A folder whose path has 125 characters at least."""
    long = folder / ("t" * max(1, 125 - len(str(folder)) - 1))
    long.mkdir()
    return long


@pytest.mark.process
def test_process_of_the_fork_server__starts_where_tmpdir_is_long(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(long_folder(tmp_path))}
    done = subprocess.run([sys.executable, "-c", _FORK], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"It runs.\n", b"")


@pytest.mark.process
async def test_machine_without_a_short_folder__is_one_sentence_and_a_row_of_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    assert (await check_data(settings))["sockets"].state == "ok"
    assert socket_folder() == Path(tempfile.gettempdir())
    monkeypatch.setattr(tempfile, "tempdir", str(long_folder(tmp_path)))
    assert socket_folder() in map(Path, ("/tmp", "/var/tmp", "/dev/shm"))  # noqa: S108
    monkeypatch.setattr(sockets, "_OTHERS", (str(tmp_path / "missing"),))
    said = "Set TMPDIR to a folder with a shorter path."
    with refused(ErrorCode.CONFIG_INVALID, said) as caught:
        socket_folder()
    assert (await check_data(settings))["sockets"] == Finding("failure", caught.value.message)
