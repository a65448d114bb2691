"""Run records and manifests for run folders."""

from tests.support import tiny_request
from trainer.artifacts.runs import RunDirectory, manifest_of
from trainer.config.presets import request_hash, resolve
from trainer.contracts.base import now
from trainer.contracts.events import JobProgress, stamp
from trainer.contracts.runs import CorpusRef, RunManifest, RunRecord
from trainer.system.files import file_records


def record(run_id: str = "char_lstm-1", user_id: int | None = 7) -> RunRecord:
    corpus = CorpusRef(name="text", sha256="a" * 64, bytes=1)
    request = tiny_request()
    effective = resolve(request, corpus=corpus, validation_corpus=None, test_corpus=None)
    return RunRecord(
        run_id=run_id,
        user_id=user_id,
        created_at=now(),
        request=request,
        effective=effective,
        request_hash=request_hash(effective),
    )


def phase(number: int) -> JobProgress:
    return JobProgress(**stamp("r", None, f"phase:{number}"), progress=0.0, message=f"phase {number}")


def completed(run: RunDirectory) -> RunManifest:
    """The manifest of a run whose model is there."""
    paths = [*run.path.glob("*.safetensors"), run.path / "config.json", *run.tokenizer.iterdir()]
    files: dict[str, object] = {"files": file_records(run.path, paths)}
    return manifest_of(run.record(), "completed").model_copy(update=files)
