"""The list of a run's files, with the checkpoints that its schedule has kept."""

from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from threading import Event, Thread

from tests.support.cleanups import add_run
from trainer.artifacts.run_files import KeptCheckpoint, run_files


def test_kept_checkpoints__of_an_unfinished_or_damaged_run_are_listed(tmp_path: Path) -> None:
    """By what vouches for them: their own manifest, as long as it can be read."""
    run = add_run(tmp_path, "run", end=None)
    folder = run.checkpoints / "scheduled" / "step-1"
    size = sum(path.stat().st_size for path in folder.iterdir())
    weights = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    [kept] = (found := run_files(run)).kept
    assert kept == KeptCheckpoint(step=1, epoch=0, words=0, tokens=0, bytes=size, sha256=weights)
    assert {file.step for file in found.files if "/scheduled/" in file.path} == {1}
    for name in ("state.json", "manifest.json"):
        (folder / name).write_bytes(b"{")
    [kept] = run_files(run).kept
    assert (kept.step, kept.epoch, kept.sha256) == (1, None, None)


def test_files__of_a_training_run_are_listed_while_checkpoints_come_and_go(tmp_path: Path) -> None:
    run = add_run(tmp_path, "run", end=None)
    before = run_files(run)
    unfinished, stop = run.checkpoints / ".tmp-step-3", Event()
    unfinished.mkdir()
    (unfinished / "model.safetensors").write_bytes(b"half of the weig")
    (run.path / "lost").symlink_to("nowhere")
    assert run_files(run) == before

    def write_and_delete() -> None:
        while not stop.is_set():
            for folder in (unfinished, run.checkpoints / "step-9"):
                (folder / "in").mkdir(parents=True, exist_ok=True)
                (folder / "in" / "model.safetensors").touch()
                rmtree(folder)

    training = Thread(target=write_and_delete)
    training.start()
    try:
        for _ in range(500):
            run_files(run)
    finally:
        stop.set()
        training.join()
