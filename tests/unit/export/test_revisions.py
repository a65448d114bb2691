"""Revisions of runs for the hub: the model of each step, without people, places and texts."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.hub_runs import add_steps
from tests.support.refusals import refused
from tests.support.run_shell import FINISHED_RUN
from tests.support.tiny_models import tensor_of
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.base import FileRecord, HttpOrigin, changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import RunMetrics
from trainer.export.card import Publication
from trainer.export.folders import load_export
from trainer.export.revisions import Revision, revisions_of, write_revision
from trainer.system.files import file_records
from trainer.training.checkpoint import CheckpointStore

PUBLICATION = Publication("ana/sea", "mit", "cc0-1.0", (8, 34))
USER_ID = 987654321012345678


@pytest.fixture(name="run")
def run_fixture(tmp_path: Path) -> RunDirectory:
    """A trained run, of somebody in Discord, with two scheduled checkpoints."""
    shutil.copytree(FINISHED_RUN, tmp_path / "root")
    [run] = RunStore(tmp_path / "root" / "artifacts").all()
    add_steps(run, 8, 34)
    private: dict[str, object] = {"requested_paths": ("/home/ana/qxwz",), "unused_settings": {"a": "/home/ana/qxwz"}}
    owner: dict[str, object] = {"user_id": USER_ID, "http": HttpOrigin(api_key="keyqxwz"), "experiment_id": "qxwz"}
    record = changed(run.record(), **private, **owner)
    (run.path / "request.json").write_text(record.model_dump_json(), encoding="utf-8")
    events = [changed(event, user_id=USER_ID) for event in run.reader().read_new()]
    (run.path / "events.jsonl").unlink()
    with run.open_log() as log:
        for event in events:
            log.append(event)
    run.write_manifest(changed(run.completed_manifest(), **private))
    run.seal.unlink()
    run.write_seal()
    return run


def written(run: RunDirectory, folder: Path, step: int | None = None) -> RunDirectory:
    """Write a revision of a run; return the folder of its records."""
    name = "main" if step is None else f"step-{step}"
    write_revision(run, Revision(name, step), folder, PUBLICATION._replace(step=step))
    return RunDirectory(folder / "run")


def contents(folder: Path) -> Sequence[FileRecord]:
    return file_records(folder, (path for path in folder.rglob("*") if path.is_file()))


@pytest.mark.parametrize("step", [None, 8])
def test_revision__names_no_person_no_place_and_no_text(run: RunDirectory, step: int | None, tmp_path: Path) -> None:
    records = written(run, tmp_path / "out", step)
    texts = (FINISHED_RUN / "data" / "corpus" / "text.txt").read_text(encoding="utf-8").split("\n")
    private = {"qxwz", str(USER_ID), "/home/", str(tmp_path), *(set(texts) - {""})}
    assert run.samples.exists() and not [*(tmp_path / "out").rglob("*samples*")]  # their prompts are words of the text
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and "tokenizer" not in path.name:
            content = path.read_bytes()
            assert not [one for one in private if one.encode() in content], path
    assert records.record().user_id is None


def test_main__has_the_records_of_the_run(run: RunDirectory, tmp_path: Path) -> None:
    records = written(run, tmp_path / "out")
    before, after = run.completed_manifest(), records.completed_manifest()
    left_out = {file for file in before.files if Path(file.path).parts[0] == "checkpoints" or "samples" in file.path}
    assert {*before.files} - {*after.files} == left_out
    nothing: dict[str, object] = {"files": (), "requested_paths": None, "unused_settings": {}}
    assert changed(before, **nothing) == changed(after, **nothing)
    status, same = run.follow().refresh(), records.follow().refresh()
    assert changed(status, user_id=None, owner=None) == same


def test_revision_of_a_step__has_its_weights_and_its_numbers_only(run: RunDirectory, tmp_path: Path) -> None:
    records = written(run, tmp_path / "out", 8)
    record, model, tokenizer = load_export(tmp_path / "out")
    weights = CheckpointStore(run.checkpoints).scheduled_weights(8)
    loaded: dict[str, Tensor] = model.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in loaded.items())
    manifest, status = records.completed_manifest(), records.follow().refresh()
    assert manifest.run_id == record.run_id == status.run_id == f"{run.run_id}-step-8"
    assert (manifest.steps, manifest.timings.train_seconds, manifest.timings.epoch_seconds) == (8, 2.0, (0.5,))
    assert (manifest.metrics, manifest.eval) == (RunMetrics(train=2.75), ())
    assert (status.status, status.train_loss, status.best_val_loss, status.test_loss) == ("completed", 2.75, None, None)
    [described] = (file for file in manifest.files if file.path == "model.safetensors")
    assert (status.artifact_bytes, status.artifact_sha256) == (described.bytes, described.sha256)
    assert [one.name for one in revisions_of(run)] == ["step-8", "step-34", "main"]
    last = written(run, tmp_path / "last", 34).follow().refresh()
    assert last.best_val_loss == run.completed_manifest().metrics.best
    assert torch.isfinite(model.forward(tensor_of([tokenizer.encode("the sea")]))).all()


@pytest.mark.parametrize("step", [None, 8])
def test_revision__is_written_equally_each_time(run: RunDirectory, step: int | None, tmp_path: Path) -> None:
    written(run, tmp_path / "one", step)
    written(run, tmp_path / "two", step)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    "name", ["loss_curve.jsonl", "eval/metrics.json", "checkpoints/scheduled/step-8/model.safetensors"]
)
def test_changed_run__is_not_written(run: RunDirectory, name: str, tmp_path: Path) -> None:
    with (run.path / name).open("ab") as file:
        file.write(b"\n")
    with refused(ErrorCode.MODEL_LOAD_FAILED, name.removesuffix("/model.safetensors")):
        written(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if name.startswith("checkpoints"):
        with refused(ErrorCode.CHECKPOINT_CORRUPT, "The checkpoint of step 8 is damaged."):
            written(run, tmp_path / "out", 8)
