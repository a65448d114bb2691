"""The `mt` command in a folder of its own, with a lab whose worker does the work."""

from pathlib import Path

import pytest

from tests.support import run_shell
from tests.support.lab import Lab
from tests.support.run_shell import TINY, Terminal, enter
from trainer.artifacts.runs import RunStore

__all__ = ["TINY", "Shell", "lab_shell_fixture"]


class Shell(Terminal):
    """A folder to type `mt` in."""

    def __init__(self, folder: Path, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder, capsys)
        self.lab, self.runs = lab, RunStore(lab.settings.app.artifacts_root)
        self.type = self.run


@pytest.fixture(name="lab_shell")
def lab_shell_fixture(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> run_shell.Shell:
    """Its settings name the lab."""
    return enter(monkeypatch, capsys, tmp_path, lab.folder, QUEUE__EMBEDDED_WORKERS="0")
