"""Run records and manifests for run folders."""

from pathlib import Path

from tests.support import tiny_request
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.config.presets import request_hash, resolve
from trainer.contracts.base import changed, now
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.events import JobProgress, stamp
from trainer.contracts.runs import CorpusRef, EffectiveRequest, FinalState, RunManifest, RunRecord, TrainRequest
from trainer.system.files import file_records


def record(
    run_id: str = "char_lstm-1",
    user_id: int | None = 7,
    *,
    request: TrainRequest | None = None,
    effective: EffectiveRequest | None = None,
) -> RunRecord:
    """A run record; its effective request is that of a text of one byte, unless it is given."""
    corpus = CorpusRef(name="text", sha256="a" * 64, bytes=1)
    sent = request or tiny_request()
    resolved = effective or resolve(sent, corpus=corpus)
    return RunRecord(
        run_id=run_id,
        user_id=user_id,
        created_at=now(),
        request=sent,
        effective=resolved,
        request_hash=request_hash(resolved),
    )


def put_in_place(run: RunDirectory, folder: Path) -> RunDirectory:
    """Move a finished run, which was made where no worker finds it, into the artifacts of a folder."""
    made = RunStore(folder / "artifacts").directory(run.path.name)
    made.path.parent.mkdir(parents=True, exist_ok=True)
    run.path.rename(made.path)
    return made


def ended(run: RunDirectory, state: FinalState, *, code: ErrorCode | None = None, **fields: object) -> RunDirectory:
    """End a run, with an error of this code or other fields of its manifest."""
    error = None if code is None else RunError.of(AppError(code, "It failed."))
    with run.open_log() as events:
        finish_run(run, events, changed(manifest_of(run.record(), state, error=error), **fields))
    return run


def phase(number: int) -> JobProgress:
    return JobProgress(**stamp("r", None, f"phase:{number}"), progress=0.0, message=f"phase {number}")


def completed(run: RunDirectory) -> RunManifest:
    """The manifest of a run whose model is there."""
    paths = [*run.path.glob("*.safetensors"), run.path / "config.json", *run.tokenizer.iterdir()]
    files: dict[str, object] = {"files": file_records(run.path, paths)}
    return manifest_of(run.record(), "completed").model_copy(update=files)
