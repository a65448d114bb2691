"""Experiments on disk: their state follows from the files, whatever was interrupted."""

from pathlib import Path

import pytest

from tests.support.cross_language import SHA, cell_run, experiment_record, plan
from tests.support.runs import ended
from tests.support.runs import record as run_record
from tests.support.stored_jobs import begin
from trainer.artifacts.experiments import (
    ExperimentDirectory,
    ExperimentStore,
    cell_keys,
    losses_path,
    seed_group,
)
from trainer.artifacts.runs import RunStore
from trainer.contracts.base import RunState, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import CellKey, ExperimentText, ExperimentTexts, Validity
from trainer.contracts.seeds import RunGroup
from trainer.contracts.tokenizers import Normalization

KK, TR = CellKey("lstm", "kk", 1), CellKey("lstm", "tr", 1)


def add_text(experiment: ExperimentDirectory) -> None:
    experiment.write_text("passages-kk", "ɑbc\ndef".encode())
    text = ExperimentText(text_id="passages-kk", kind="passages", language="kk", sections=2, characters=6, sha256=SHA)
    experiment.write_texts(ExperimentTexts(normalization=Normalization(), texts=(text,)))


def states(experiment: ExperimentDirectory, folder: Path) -> list[RunState]:
    return [cell.status for cell in experiment.status().cells]


@pytest.fixture(name="experiment")
def experiment_fixture(tmp_path: Path) -> ExperimentDirectory:
    return ExperimentStore(tmp_path).create(experiment_record())


def test_status__follows_from_the_files(experiment: ExperimentDirectory, tmp_path: Path) -> None:
    runs = RunStore(tmp_path)
    status = experiment.status()
    assert (status.status, status.message, status.cells_done) == ("queued", "Waiting for a worker.", 0)
    cells = [(kind, language, None) for language in ("kk", "tr") for kind in ("train", "score")]
    assert [(cell.kind, cell.language, cell.run_id) for cell in status.cells] == cells
    begin(experiment)
    add_text(experiment)
    texts = experiment.texts()
    assert texts is not None and experiment.sections(texts.texts[0]) == ["ɑbc", "def"]
    kk, tr = (runs.create(run_record(name)) for name in ("lstm-1", "lstm-2"))
    ended(kk, "completed")
    experiment.write_runs([cell_run(KK, "lstm-1"), cell_run(TR, "lstm-2")])
    assert experiment.status().message == "1 of 4 cells done."
    assert states(experiment, tmp_path) == ["completed", "running", "queued", "queued"]
    begin(tr)
    for encoding in ("raw", "assimilated"):
        path = losses_path(kk.path, SHA, encoding)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert states(experiment, tmp_path) == ["completed", "completed", "running", "queued"]
    experiment.write_runs([cell_run(KK, "lstm-1"), cell_run(TR, "lstm-1")])
    assert experiment.status().message == "Computing tables and figures."
    (experiment.path / "validity.json").write_text(Validity(passed=False).model_dump_json(), encoding="utf-8")
    (experiment.path / "tables").mkdir()
    (experiment.path / "tables" / "matrix.csv").touch()
    experiment.result.touch()
    status = experiment.status()
    assert (status.status, status.is_valid, status.cells_done) == ("completed", False, 4)
    assert [file.path for file in status.files] == ["result.json", "tables/matrix.csv", "validity.json"]
    listed = experiment.listed()
    assert (listed.files, listed.cells) == ((), ())


def test_missing_or_damaged_records__are_written_again(experiment: ExperimentDirectory, tmp_path: Path) -> None:
    experiment.write_runs([cell_run(KK, "lstm-1")])
    cell = experiment.status().cells[0]
    assert (cell.status, cell.run_id) == ("queued", None)
    for name in ("texts.json", "runs.json"):
        (experiment.path / name).write_text("{", encoding="utf-8")
    assert (experiment.texts(), experiment.runs()) == (None, {})


def test_failed_experiment__begins_again_without_its_runs(experiment: ExperimentDirectory, tmp_path: Path) -> None:
    store = ExperimentStore(tmp_path)
    experiment.write_runs([cell_run(KK, "lstm-1")])
    add_text(experiment)
    experiment.fail(AppError(ErrorCode.OUT_OF_MEMORY, "Memory ran out."))
    status = experiment.status()
    assert (status.status, status.message) == ("failed", "Memory ran out.")
    assert status.error is not None and status.error.code is ErrorCode.OUT_OF_MEMORY
    assert store.unfinished() == []
    assert store.create(experiment_record()).is_unfinished()
    assert (experiment.runs(), experiment.texts() is not None) == ({}, True)


def test_runs_of_several_seeds__are_a_group_of_their_model_and_language() -> None:
    several = experiment_record(seeds=[1, 5])
    assert seed_group(several, KK) == RunGroup(group_id="small-01234567-lstm-kk", seeds=(1, 5))
    assert seed_group(experiment_record(), KK) is None
    several = changed(several, experiment_id=f"{'n' * 32}-01234567")
    long = [seed_group(several, KK._replace(model=f"{'m' * 31}{end}", language="kk-abcdefgh-cyrl")) for end in "ab"]
    ids = {group.group_id for group in long if group is not None}
    assert len(ids) == 2 and {len(one) for one in ids} == {64}


def test_cells__are_ordered_by_model_then_seed_then_language() -> None:
    assert cell_keys(plan(seeds=[1, 5])) == [KK, TR, KK._replace(seed=5), TR._replace(seed=5)]
    assert str(KK) == "lstm kk, seed 1"
