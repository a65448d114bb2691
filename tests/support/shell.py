"""The `mt` command, called in this process as a shell would call it."""

import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import pytest

from tests.support import environment_in
from tests.support.lab import Lab
from trainer.artifacts.runs import RunStore
from trainer.commands.main import main
from trainer.contracts.runs import RunStatus

TINY = [
    *("--set", "model.embedding_size=8", "--set", "model.hidden_size=8", "--set", "model.num_layers=1"),
    *("--set", "max_seq_len=16", "--set", "batch_size=4", "--set", "num_epochs=2", "--set", "threads=1"),
]


class Shell:
    """A folder to type `mt` in; the settings in the environment name a lab, whose worker does the work."""

    def __init__(self, folder: Path, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.lab = lab
        self.runs = RunStore(lab.settings.app.artifacts_root)
        self._capsys = capsys

    def type(self, *words: str, typed: str | BinaryIO = "") -> tuple[int, str, str]:
        """Run a command in this process, with a standard input; return exit code, standard output, standard error."""
        stdin = os.dup(0)
        with TemporaryFile() as file:
            if isinstance(typed, str):
                file.write(typed.encode())
                file.seek(0)
                typed = file
            os.dup2(typed.fileno(), 0)
            try:
                code = main(words)
            finally:
                os.dup2(stdin, 0)
                os.close(stdin)
        out, err = self._capsys.readouterr()
        return code, out, err

    def train(self, *words: str) -> RunStatus:
        code, out, err = self.type("train", *TINY, *words, "--json")
        assert code == 0, err
        assert out.count("\n") == 1
        return RunStatus.model_validate_json(out)


@pytest.fixture(name="shell")
def shell_fixture(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    for name, value in environment_in(lab.folder, QUEUE__EMBEDDED_WORKERS="0").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOGGING__LEVEL", raising=False)
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, lab, capsys)
