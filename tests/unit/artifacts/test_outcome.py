"""The outcome of an ended run for the final message and `/mt logs`, also with missing or broken files."""

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from tests.support.stories import Story, run_record
from trainer.artifacts.outcome import Outcome, last_lines, read_outcome, shown_line, without_paths
from trainer.artifacts.runs import RunDirectory, manifest_of
from trainer.contracts.base import FileRecord
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.generations import Sample
from trainer.contracts.runs import FinalState
from trainer.contracts.training_options import LogLevel
from trainer.system.files import file_records
from trainer.system.logs import readable_line

FILE = FileRecord(path="model.safetensors", bytes=1, sha256="a" * 64)
LEVELS: tuple[LogLevel, ...] = ("DEBUG", "INFO", "WARNING", "ERROR")
CRASH = ("Fatal Python error: Aborted\n", '  File "/srv/app/trainer/training.py", line 7 in train\n')


def ended(folder: Path, status: FinalState, *samples: tuple[str, str]) -> RunDirectory:
    run = Story(folder, run_record()).run
    error = RunError.of(AppError(ErrorCode.CRASH_LOOP, "It crashed.")) if status == "failed" else None
    update: dict[str, object] = {"files": (FILE,), "last_lines": CRASH if status == "failed" else ()}
    run.write_manifest(manifest_of(run.record(), status, error=error).model_copy(update=update))
    run.samples.parent.mkdir()
    lines = [Sample(prompt=p, text=t, seed=1, steps=1, stop_reason="eos").model_dump_json() for p, t in samples]
    run.samples.write_text("\n".join(lines), encoding="utf-8")
    return run


def test_outcome__of_a_completed_run_is_its_files_and_two_own_samples(tmp_path: Path) -> None:
    run = ended(tmp_path, "completed", ("a", "bc"), ("", "one"), ("", " "), ("", "two"), ("", "three"))
    outcome, prompted = read_outcome(run), read_outcome(ended(tmp_path / "other", "completed", ("a", "bc")))
    assert outcome.files == (*file_records(run.path, [run.path / "manifest.json"]), FILE)
    assert [sample.text for sample in outcome.samples] == ["one", "two"]
    assert [sample.prompt for sample in prompted.samples] == ["a"], "it has no samples of its own"


def test_outcome__leaves_out_what_is_missing_or_broken(tmp_path: Path) -> None:
    run = ended(tmp_path, "completed", ("", "one"))
    run.samples.write_bytes(b"{\n")
    broken = read_outcome(run)
    run.samples.unlink()
    assert broken == read_outcome(run) == Outcome(files=(*file_records(run.path, [run.path / "manifest.json"]), FILE))
    (run.path / "manifest.json").write_bytes(b"{")
    assert read_outcome(run) == Outcome()
    (run.path / "manifest.json").unlink()
    assert read_outcome(run) == Outcome()


def test_last_lines__of_a_crash_come_after_the_log_and_name_no_folders(tmp_path: Path) -> None:
    run = ended(tmp_path, "failed")
    run.logs.write_text('{"message": "attempt_started"}\nno json\n', encoding="utf-8")
    crash = ["Fatal Python error: Aborted", '  File "…/training.py", line 7 in train']
    assert last_lines(run, 20) == ["attempt_started", "no json", *crash]
    assert last_lines(run, 3) == ["no json", *crash]
    assert read_outcome(run).last_lines == last_lines(run, 8)
    (run.path / "manifest.json").write_bytes(b"{")
    assert last_lines(run, 20) == ["attempt_started", "no json"]


def test_last_lines__from_a_level_keep_crashes_and_lines_without_one(tmp_path: Path) -> None:
    run = ended(tmp_path, "failed")
    levels = ("debug", "info", "warning", "error", "odd")
    lines = [f'{{"level": "{level}", "message": "m-{level}"}}' for level in levels]
    run.logs.write_text("\n".join([*lines, "no json\n"]), encoding="utf-8")
    shown = {level: [line.split()[-1] for line in last_lines(run, 20, level)[:-2]] for level in LEVELS}
    assert shown["DEBUG"] == ["m-debug", "m-info", "m-warning", "m-error", "m-odd", "json"]
    assert shown["INFO"] == shown["DEBUG"][1:] and shown["WARNING"] == shown["DEBUG"][2:]
    assert shown["ERROR"] == ["m-error", "m-odd", "json"]
    assert read_outcome(run).last_lines == last_lines(run, 8, "WARNING"), "a crash is not told by its start"


PARTS = st.text(st.characters(categories=["L", "N"], include_characters="-_"), min_size=1, max_size=12)
FOLDERS = st.lists(PARTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


def test_line__with_an_exception_or_damaged_shows_no_path() -> None:
    trace = 'Traceback:\n  File "/home/me/trainer/training.py", line 7, in run\nOSError: [Errno 28] /mnt/disk/run.bin'
    line: dict[str, object] = {"level": "error", "message": "failed", "exception": trace}
    told = without_paths(readable_line(json.dumps(line)))
    assert told.endswith('File "…/training.py", line 7, in run\nOSError: [Errno 28] …/run.bin')
    assert shown_line('{"event": "cut off at /srv/app/runs', stored=True) == '{"event": "cut off at …'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1200 tokens/s, 3 / 4 epochs", "1200 tokens/s, 3 / 4 epochs"),
        ("wrote /srv/artifacts/x.bin", "wrote …/x.bin"),
        ("in /srv/artifacts/", "in …/"),
        ("path:/srv/x", "path:…"),
        ("'C:\\Users\\me\\x.txt'", "'…/x.txt'"),
        ("redis://user:word@host:6379/0 away", "… away"),
        ("unix:///run/valkey.sock", "…"),
    ],
)
def test_places__are_left_out(text: str, shown: str) -> None:
    assert without_paths(text) == shown


@for_all(FOLDERS)
def test_places__of_any_path_are_left_out(folder: str) -> None:
    assert without_paths(f"cannot open {folder}/model.bin: {folder}") == "cannot open …/model.bin: …"
