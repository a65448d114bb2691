"""A run's log as the bot shows it: without paths of the machine."""

import json

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from trainer.artifacts.outcome import without_paths
from trainer.system.logs import readable_line

PARTS = st.text(st.characters(categories=["L", "N"], include_characters="-_"), min_size=1, max_size=12)
FOLDERS = st.lists(PARTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


def test_line__has_time_level_event_and_values() -> None:
    line: dict[str, object] = {
        "timestamp": "2026-11-20T12:34:56.789012+00:00",
        "level": "warning",
        "logger": "trainer.training.loop",
        "service": "trainer-child",
        "instance_id": "my-host:4711",
        "message": "validation",
        "event": "validation",
        "category": "training",
        "run_id": "lstm-1",
        "user_id": 7,
        "loss": 1.5,
        "device": None,
    }
    assert readable_line(json.dumps(line)) == "2026-11-20 12:34:56 warning  validation loss=1.5"


def test_line__with_an_exception_keeps_it_without_paths() -> None:
    trace = 'Traceback:\n  File "/home/me/trainer/training.py", line 7, in run\nOSError: [Errno 28] /mnt/disk/run.bin'
    line: dict[str, object] = {"level": "error", "message": "failed", "exception": trace}
    told = without_paths(readable_line(json.dumps(line)))
    assert told.endswith('File "…/training.py", line 7, in run\nOSError: [Errno 28] …/run.bin')


@pytest.mark.parametrize("line", ["no json", '"text"', "17", "[]", "null"])
def test_line__that_is_none_of_ours_stays_as_it_is(line: str) -> None:
    assert readable_line(line) == line


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
