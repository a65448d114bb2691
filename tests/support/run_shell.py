"""The `mt` command over a folder with runs."""

import shutil
from pathlib import Path

import pytest

from tests.support import ROOT, environment_in
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.commands.main import main
from trainer.contracts.errors import ErrorBody
from trainer.contracts.runs import RunStatus

FINISHED_RUN = ROOT / "tests" / "fixtures" / "finished_run"


class Shell:
    """A folder to type `mt` in, with its settings in the environment."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.runs = RunStore(folder / "artifacts")
        self._capsys = capsys

    def type(self, *words: str, code: int = 0) -> str:
        """Run a command in this process; return its standard output."""
        assert main(words) == code, words
        self.out, self.err = self._capsys.readouterr()
        return self.out

    def error(self, *words: str) -> ErrorBody:
        return ErrorBody.model_validate_json(self.type(*words, "--json", code=2))

    def status(self, run: RunDirectory) -> RunStatus:
        return RunStatus.model_validate_json(self.type("status", run.run_id, "--json"))

    def add_finished_run(self) -> RunDirectory:
        """A completed run with all its files, and its text."""
        shutil.copytree(FINISHED_RUN, self.folder, dirs_exist_ok=True)
        return self.runs.all()[-1]

    def add_interrupted_run(self) -> RunDirectory:
        """A run whose worker was killed in mid-training."""
        run = self.add_finished_run()
        (run.path / "manifest.json").unlink()
        run.seal.unlink()
        log = run.path / "events.jsonl"
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-3]))
        return run


@pytest.fixture(name="shell")
def shell_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    for name in ("LOGGING__LEVEL", "REDIS__URL", "REDIS_URL", "DISCORD__TOKEN", "DISCORD__OWNER_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


@pytest.fixture(name="run")
def finished_copy_fixture(tmp_path: Path) -> RunDirectory:
    """A sealed finished run with checkpoints, an evaluation, a log and its text."""
    shutil.copytree(FINISHED_RUN, tmp_path, dirs_exist_ok=True)
    [run] = RunStore(tmp_path / "artifacts").all()
    run.write_seal()
    return run
