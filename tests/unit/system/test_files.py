"""A full disk or an unusable folder gives one sentence, from every command and from the bot."""

import errno
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, setrlimit
from tempfile import NamedTemporaryFile, TemporaryDirectory

import pytest

from bot.main import main as start_bot
from tests.support import ROOT, environment_in
from tests.support.disk_failures import allowing
from tests.support.finished_runs import finished_run
from tests.support.stories import Story, run_record
from trainer.artifacts.attempts import record_end
from trainer.commands.main import main as mt
from trainer.commands.terminal import Terminal
from trainer.commands.training import note_waiting_for_storage
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.export.archive import export_archive
from trainer.lab.here import with_disk
from trainer.system.files import check_writable, is_full, is_read_only, to_app_error

ALWAYS_FULL = Path("/proc")
"""It has no room, whoever looks."""
FOLDERS = {"APP__DATA_ROOT": Path("/a/data"), "APP__ARTIFACTS_ROOT": Path("/a/artifacts")}


@pytest.mark.parametrize(
    ("number", "path", "code", "said"),
    [
        (errno.ENOSPC, "/a/data/x", ErrorCode.INSUFFICIENT_STORAGE, "The disk is full: free some space."),
        (errno.EDQUOT, None, ErrorCode.INSUFFICIENT_STORAGE, "The disk is full: free some space."),
        (errno.EACCES, "/a/data/x", ErrorCode.CONFIG_INVALID, "The folder of APP__DATA_ROOT cannot be used"),
        (errno.EACCES, "/a", ErrorCode.CONFIG_INVALID, "The folder of APP__DATA_ROOT cannot be used"),
        (errno.ENOTDIR, "/a/artifacts", ErrorCode.CONFIG_INVALID, "The folder of APP__ARTIFACTS_ROOT cannot be used"),
        (errno.EROFS, "/a/artifacts/b", ErrorCode.CONFIG_INVALID, "The folder of APP__ARTIFACTS_ROOT cannot be used"),
        (errno.EROFS, "/b", ErrorCode.SERVICE_UNAVAILABLE, "The disk failed (Read-only file system): have it checked."),
        (errno.EROFS, None, ErrorCode.SERVICE_UNAVAILABLE, "The disk failed (Read-only file system): have it checked."),
        (errno.EIO, "/a/data/x", ErrorCode.SERVICE_UNAVAILABLE, "The disk failed (Input/output error):"),
    ],
)
def test_error_of_the_disk__is_named_by_its_reason(number: int, path: str | None, code: ErrorCode, said: str) -> None:
    told = to_app_error(OSError(number, os.strerror(number), path), FOLDERS)
    assert told.code is code
    assert told.message.startswith(said)


def test_other_errors__stay_what_they_are() -> None:
    foreseen, missing = AppError(ErrorCode.CONFLICT, "x"), FileNotFoundError(errno.ENOENT, "x", "/b/c")
    spoilt = IsADirectoryError(errno.EISDIR, "x", "/a/artifacts/tokenizers/a/tokenizer.json")  # nobody is kept from it
    assert to_app_error(foreseen, FOLDERS) is foreseen
    for fault in (missing, spoilt):
        with pytest.raises(type(fault)):
            to_app_error(fault, FOLDERS)


def test_writable_folder__is_created_and_stays_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not any((tmp_path / "a" / "b").iterdir())
    assert not is_full(tmp_path)


def test_folder_of_another_user__is_read_only_and_one_that_is_missing_an_error() -> None:
    with TemporaryDirectory() as name, NamedTemporaryFile(dir=name) as file:
        folder = Path(name)
        assert not is_read_only(folder)
        with allowing(0o555, folder):
            assert is_read_only(folder)
            for other in (folder / "missing", Path(file.name)):
                with pytest.raises(OSError, match=r"Permission denied|File exists"):
                    is_read_only(other)


@pytest.mark.parametrize("place", ["a-file", "a-file/below", "/proc/none/below"])
@pytest.mark.parametrize("name", ["APP__DATA_ROOT", "APP__ARTIFACTS_ROOT"])
def test_unusable_folder_of_the_settings__is_one_sentence_everywhere(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    (tmp_path / "text").write_text("ab ba\n" * 20, encoding="utf-8")
    for setting, value in {"DISCORD__TOKEN": "a", "DISCORD__OWNER_ID": "1", name: place}.items():
        monkeypatch.setenv(setting, value)
    commands = [["worker"]]
    if name == "APP__DATA_ROOT":
        commands.append(["tokenizer", "train", "--corpus", "text", "--method", "char"])
    elif place != "/proc/none/below":
        export_archive(finished_run(tmp_path, "char_lstm"), tmp_path / "run.tar")
        commands.append(["import", "run.tar"])  # the archive is not to blame
    before: list[str] = []
    for words in [list[str](), *commands]:
        before = sorted(os.listdir(tmp_path))
        assert (mt(words) if words else start_bot()) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.removeprefix("mt: ").startswith(f"The folder of {name} cannot be used (")
        assert err.endswith(f" or set {name} to another folder.\n")
    assert sorted(os.listdir(tmp_path)) == before, "the last command has made nothing"


@pytest.mark.process
def test_full_disk__is_one_sentence_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be longer than 1,000 bytes, which the system reports as it reports a full disk."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # its files can be longer
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "train", "--corpus", "demo"],
        cwd=tmp_path,
        env=environment_in(tmp_path, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1"),
        preexec_fn=partial(setrlimit, RLIMIT_FSIZE, (1000, RLIM_INFINITY)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "mt: The disk is full: free some space."
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "artifacts" / "models").exists()


def test_waiting_for_the_disk__is_printed_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start()
    training = story.follower().refresh()
    record_end(story.run, "disk_full", ())
    for folder, status in ((ALWAYS_FULL, training), (tmp_path, story.follower().refresh())):
        terminal = Terminal(as_json=True)
        note_waiting_for_storage(with_disk(tmp_path, training), terminal)
        assert capsys.readouterr().err == ""
        for _ in range(2):
            note_waiting_for_storage(with_disk(folder, status), terminal)
        assert capsys.readouterr().err == f"mt: {WAIT_MESSAGES['disk_space']}\n"
