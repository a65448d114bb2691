"""Runs that stopped between two checkpoints."""

from pathlib import Path

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.checkpoints import checkpoint
from tests.support.runs import record
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.runs import FinalState
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request
from trainer.training.checkpoint import CheckpointStore


async def stopped_run(
    folder: Path,
    end: FinalState | None = "cancelled",
    *,
    run_id: str = "char_lstm-1",
    steps: tuple[int, ...] = (3, 5),
    user_id: int | None = None,
    label: str | None = None,
) -> RunDirectory:
    """A run that has come so far, and what its training wrote; the best of its checkpoints is the first."""
    add_corpus(folder, some_text())
    add_corpus(folder, "a b c\n", name="other")
    settings, request = settings_in(folder), tiny_request(validation_corpus="other", label=label)
    effective = await resolve_request(request, CorpusStore(settings), settings)
    accepted = record(run_id, user_id, request=request, effective=effective)
    accepted = changed(accepted, requested_paths=("a", "b", "c"))
    run = RunStore(settings.app.artifacts_root).create(accepted)
    for step in steps:
        CheckpointStore(run.checkpoints).save(checkpoint(step, steps[0]))
    run.tokenizer.mkdir()
    (run.tokenizer / "tokenizer.json").write_text("{}", encoding="utf-8")
    run.loss_curve.write_text('{"step": 1}\n', encoding="utf-8")
    if end is not None:
        error = RunError.of(AppError(ErrorCode.MODEL_TRAIN_FAILED, "It broke.")) if end == "failed" else None
        with run.open_log() as events:
            finish_run(run, events, manifest_of(accepted, end, error=error))
    return run
