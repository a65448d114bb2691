"""A revision of a run on the hub: the exported model of a step, and the records from which `mt pull` makes a run of it.

The records name no person, and no folder or text of this machine: not the requester, the requested paths, the ignored
settings and the samples, whose prompts are words of the corpus.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save as save_safetensors
from torch import Tensor

from trainer.artifacts.archives import PASSPORT_FILES
from trainer.artifacts.checkpoint_files import STATE, TrainingState, scheduled_folder, step_folder
from trainer.artifacts.job_folder import REQUEST_FILE
from trainer.artifacts.runs import RunDirectory
from trainer.config.experiment_file import experiment_yaml
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.events import (
    ArtifactRef,
    CheckpointSaved,
    EvalCompleted,
    Event,
    JobCompleted,
    MetricsCompleted,
    MetricsProgress,
)
from trainer.contracts.runs import RunManifest, RunMetrics
from trainer.export import library_folder
from trainer.export.card import EXPERIMENT_FILE, ExportRecord, Publication, passport
from trainer.export.folders import export_folder
from trainer.export.verification import check_whole
from trainer.inference.model_files import CONFIG_FILE, TOKENIZER_FOLDER
from trainer.models.base import LanguageModel
from trainer.system.destination import RECORD_FILE
from trainer.system.files import DISK, copy_durably, file_records, read_record
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import vocabulary_of
from trainer.training.checkpoint import CheckpointStore

MAIN = "main"
RUN_FOLDER = "run"
_NUMBERS = ("loss_curve.jsonl", "eval/metrics.json")
"""Files with numbers of the final model. Samples begin with words of the corpus; a checkpoint is a revision."""
_AT_THE_END = (
    *("test_loss", "test_perplexity", "bits_per_char", "train_bits_per_char"),
    *("auc", "early_stopped", "best_epoch"),
)
"""Figures of the completed training, which earlier weights do not have."""
_NOBODY: dict[str, object] = {"user_id": None, "http": None, "experiment_id": None, "study_id": None}
_NO_PATHS: dict[str, object] = {"requested_paths": None, "unused_settings": {}}


class Revision(NamedTuple):
    """A branch of the repository: the final model, or the weights of a scheduled step."""

    name: str
    step: int | None = None


def revisions_of(run: RunDirectory) -> list[Revision]:
    """Return the revisions of a run: its scheduled checkpoints in ascending order, then the final model."""
    steps = CheckpointStore(run.checkpoints).scheduled_steps()
    return [*(Revision(f"step-{step}", step) for step in steps), Revision(MAIN)]


def write_revision(run: RunDirectory, revision: Revision, folder: Path, publication: Publication) -> RunManifest:
    """Write a revision to a new folder, equally each time; return the manifest of its run.

    Raises RUN_NOT_READY, CHECKPOINT_CORRUPT for changed weights of a step, and MODEL_LOAD_FAILED for any changed file.
    """
    if revision.step is None:
        with run.in_use():
            check_whole(run)
    exported = export_folder(run, "hf", folder, publication.licence, step=revision.step)
    tokenizer = load_tokenizer(run.tokenizer)
    model = library_folder.read_model(folder, exported.model, vocabulary_of(tokenizer))
    records = RunDirectory(folder / RUN_FOLDER)
    content = _weights(model)
    weights = FileRecord(path=records.weights.name, bytes=len(content), sha256=sha256(content).hexdigest())
    manifest = _manifest(run, revision)
    of_run = [CONFIG_FILE]
    if revision.step is None:
        of_run += _NUMBERS
    files = [file for file in manifest.files if file.path in of_run or Path(file.path).parts[0] == TOKENIZER_FOLDER]
    for file in files:
        copy = (records.path if file.path in of_run else folder) / file.path
        DISK.make_folder(copy.parent)
        copy_durably(run.path / file.path, copy)
    manifest = changed(manifest, files=tuple(sorted([*files, weights], key=_path)))
    record = changed(run.record(), run_id=manifest.run_id, **_NOBODY, **_NO_PATHS)
    DISK.write(records.path / REQUEST_FILE, record.model_dump_json(indent=1).encode())
    artifact = ArtifactRef(id=manifest.run_id, bytes=weights.bytes, sha256=weights.sha256)
    with records.open_log() as events:
        for event in _events(run, revision, artifact):
            events.append(event)
    records.write_manifest(manifest)
    records.write_seal()
    experiment = experiment_yaml(record)
    DISK.write(folder / EXPERIMENT_FILE, experiment.encode())
    for name, content in passport(manifest, tokenizer.manifest, "hf", publication.licence, None, publication).items():
        DISK.write(folder / name, content)
    written = {path for path in folder.rglob("*") if path.is_file()}
    written -= {folder / name for name in (*PASSPORT_FILES, RECORD_FILE)}
    described = changed(exported, run_id=manifest.run_id, checkpoint=None, files=file_records(folder, written))
    DISK.write(folder / RECORD_FILE, described.model_dump_json(indent=2).encode())
    return manifest


def read_revision(folder: Path, record: ExportRecord, run: RunDirectory) -> None:
    """Write the files of the run that a folder of `write_revision` describes; nothing in the folder is executed.

    Raises ValueError or MODEL_LOAD_FAILED for weights or a tokenizer that do not match the record.
    """
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    model = library_folder.read_model(folder, record.model, vocabulary_of(tokenizer))
    copy_durably(folder / RUN_FOLDER, run.path, run.disk)
    copy_durably(folder / TOKENIZER_FOLDER, run.tokenizer, run.disk)
    run.disk.write(run.weights, _weights(model))


def _weights(model: LanguageModel) -> bytes:
    """Return `model.safetensors` of a run, which a repository holds under the names of the library only."""
    weights: dict[str, Tensor] = model.state_dict()
    return save_safetensors(weights)


def _path(file: FileRecord) -> str:
    return file.path


def _manifest(run: RunDirectory, revision: Revision) -> RunManifest:
    """Return the manifest of a revision without its files; that of a step has no losses of the final model."""
    manifest = changed(run.completed_manifest(), **_NO_PATHS)
    if revision.step is None:
        return manifest
    state = _state(run, revision.step)
    seconds = tuple(epoch.seconds for epoch in state.epochs)
    return changed(
        manifest,
        run_id=_run_id(run, revision),
        metrics=RunMetrics(train=_train_loss_nats(state), initial=manifest.metrics.initial),
        early_stopped=False,
        best_epoch=None,
        steps=revision.step,
        timings=changed(manifest.timings, train_seconds=state.train_seconds, epoch_seconds=seconds),
        eval=(),
    )


def _events(run: RunDirectory, revision: Revision, artifact: ArtifactRef) -> Iterator[Event]:
    """Yield the events of a run under the id of its revision; those of a step leave out what came after it."""
    for event in run.reader().read_new():
        event_id = artifact.id + event.event_id.removeprefix(run.run_id)
        fields: dict[str, object] = {"job_id": artifact.id, "event_id": event_id, "user_id": None}
        match event:
            case JobCompleted():
                fields["result_id"] = artifact.id
            case MetricsCompleted():
                fields["artifact"] = artifact
                if revision.step is not None:
                    fields |= {name: None for name in _AT_THE_END}
                    fields["train_loss"] = _train_loss_nats(_state(run, revision.step))
            case MetricsProgress() | CheckpointSaved() if revision.step is not None and event.step > revision.step:
                continue
            case EvalCompleted() if revision.step is not None:
                continue
            case _:
                pass
        yield changed(event, **fields)


def _state(run: RunDirectory, step: int) -> TrainingState:
    return read_record(step_folder(scheduled_folder(run.checkpoints), step) / STATE, TrainingState)


def _train_loss_nats(state: TrainingState) -> float | None:
    """Return the mean training loss of the last complete epoch; None before its end."""
    return state.epochs[-1].train_loss_nats if state.epochs else None


def _run_id(run: RunDirectory, revision: Revision) -> str:
    return run.run_id if revision.step is None else f"{run.run_id}-{revision.name}"
