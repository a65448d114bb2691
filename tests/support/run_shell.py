"""The `mt` command, called in this process as a shell would call it, in a folder of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, TypeAlias, TypeVar

import pytest
from pydantic import BaseModel

from tests.support import ROOT, environment_in, processes
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.commands.main import main
from trainer.contracts.errors import ErrorBody
from trainer.contracts.runs import RunStatus

TINY = [
    *("--set", "model.embedding_size=8", "--set", "model.hidden_size=8", "--set", "model.num_layers=1"),
    *("--set", "max_seq_len=16", "--set", "batch_size=4", "--set", "num_epochs=2", "--set", "threads=1"),
]
FINISHED_RUN = ROOT / "tests" / "fixtures" / "finished_run"
RecordT = TypeVar("RecordT", bound=BaseModel)
RecordType: TypeAlias = type[RecordT]  # below, `type` is a method


class Terminal:
    """Types commands in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def run(self, *words: str, typed: str | BinaryIO = "") -> tuple[int, str, str]:
        """Run a command with a standard input; return exit code, standard output, standard error."""
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
        return code, *self._capsys.readouterr()


class Shell(Terminal):
    """A folder to type `mt` in; its settings, in the environment, name this folder or another root."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], root: Path | None = None) -> None:
        super().__init__(folder, capsys)
        self.root = root or folder
        self.artifacts = self.root / "artifacts"
        self.runs = RunStore(self.artifacts)
        self.out = self.err = ""

    def type(self, *words: str, code: int = 0, typed: str | BinaryIO = "") -> str:
        """Run a command that ends with a code; return its standard output."""
        found, self.out, self.err = self.run(*words, typed=typed)
        assert found == code, (words, self.out, self.err)
        return self.out

    def read(self, record: RecordType[RecordT], *words: str, code: int = 0) -> RecordT:
        """Run a command for a program; return the object that it prints, which is one line."""
        end = words.index("--") if "--" in words else len(words)
        assert self.type(*words[:end], "--json", *words[end:], code=code).count("\n") == 1
        return record.model_validate_json(self.out)

    def error(self, *words: str, code: int = 2) -> ErrorBody:
        return self.read(ErrorBody, *words, code=code)

    def refuse(self, *words: str, code: int = 2, typed: str | BinaryIO = "") -> str:
        """Run a command that does not do its work; return its one sentence, the only thing that it prints."""
        assert (self.type(*words, code=code, typed=typed), self.err.count("\n")) == ("", 1), self.err
        return self.err

    def status(self, run: RunDirectory) -> RunStatus:
        return self.read(RunStatus, "status", run.run_id)

    def train(self, *words: str) -> RunDirectory:
        """Train a tiny model to the end."""
        status = self.read(RunStatus, "train", *TINY, *words)
        assert status.status == "completed"
        return self.runs.get(status.run_id)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "trainer", *words],
            cwd=self.folder,
            env=environment_in(self.root, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file beside the command."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def add_finished_run(self) -> RunDirectory:
        """A completed run with all its files, and its text."""
        shutil.copytree(FINISHED_RUN, self.root, dirs_exist_ok=True)
        return self.runs.all()[-1]

    def add_interrupted_run(self) -> RunDirectory:
        """A run whose worker was killed in mid-training."""
        run = self.add_finished_run()
        (run.path / "manifest.json").unlink()
        run.seal.unlink()
        log = run.path / "events.jsonl"
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-3]))
        return run

    def has_started_nothing(self) -> bool:
        return not (self.root / "data" / "services").exists() and processes(self.root) == []


def sets(*fields: str) -> list[str]:
    """Return the options `--set` of some fields."""
    return [word for field in fields for word in ("--set", field)]


def enter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, root: Path, **more: str
) -> Shell:
    """Go to a folder, with the settings of a root in the environment."""
    for name in ("LOGGING__LEVEL", "REDIS__URL", "REDIS_URL", "DISCORD__TOKEN", "DISCORD__OWNER_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment_in(root, COLUMNS="200", **more).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return Shell(folder, capsys, root)


@pytest.fixture(name="shell")
def shell_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return enter(monkeypatch, capsys, tmp_path, tmp_path)


@pytest.fixture(name="run")
def finished_copy_fixture(tmp_path: Path) -> RunDirectory:
    """A sealed finished run with checkpoints, an evaluation, a log and its text."""
    shutil.copytree(FINISHED_RUN, tmp_path, dirs_exist_ok=True)
    [run] = RunStore(tmp_path / "artifacts").all()
    run.write_seal()
    return run


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
