"""Runs with real records and event logs, written by hand."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import log
from pathlib import Path

from tests.support.runs import record
from trainer.artifacts.curves import RunCurves
from trainer.artifacts.run_status import RunFollower
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.presets import resolve
from trainer.contracts.base import changed
from trainer.contracts.baselines import Baseline
from trainer.contracts.errors import ErrorClass, ErrorCode
from trainer.contracts.events import (
    ArtifactRef,
    CheckpointSaved,
    Event,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobPaused,
    JobProgress,
    JobStarted,
    MetricsCompleted,
    MetricsConfig,
    MetricsProgress,
)
from trainer.contracts.runs import CorpusRef, Leaks, RunRecord, TrainRequest

BEGIN = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
STARTER = 700
TOTAL_STEPS = 100


def run_record(
    run_id: str = "char_lstm-20261120-0a1b2c", *, user_id: int | None = STARTER, label: str | None = "kk-ipa"
) -> RunRecord:
    request = TrainRequest(model_family="char_lstm", corpus="kk_ipa", label=label)
    corpus = CorpusRef(name="kk_ipa", sha256="c" * 64, bytes=1_234_567)
    effective = resolve(request, corpus=corpus)
    return changed(record(run_id, user_id, request=request, effective=effective), created_at=BEGIN)


class Story:
    """A run in a store, and what happens to it."""

    def __init__(self, root: Path, record: RunRecord, begin: datetime = BEGIN) -> None:
        self.record = record
        self.run: RunDirectory = RunStore(root).create(record)
        self._now = begin

    def follower(self) -> RunFollower:
        follower = self.run.follow()
        follower.refresh()
        return follower

    def curves(self) -> RunCurves:
        curves = self.run.curves()
        curves.read_new()
        return curves

    def start(self, leaks: Leaks | None = None, notes: Sequence[str] = ()) -> "Story":
        self._append(JobStarted, "started", queue="training", attempt=1)
        return self._append(
            MetricsConfig,
            "config",
            **{"model_family": "char_lstm", "model_size": None, "total_epochs": 5, "total_steps": TOTAL_STEPS},
            **{"batch_size": 64, "learning_rate": 2e-3, "params": 1000, "vocab_size": 43, "device": "cpu"},
            **{"precision": "fp32", "threads": 1, "tokenizer_id": "tok", "leaks": leaks or {}, "notes": notes},
        )

    def read_corpus(self) -> "Story":
        self._append(JobStarted, "started", queue="training", attempt=1)
        return self._append(JobProgress, "reading", progress=0.0, message="Reading the corpus.")

    def wait(self, seconds: float) -> "Story":
        self._now += timedelta(seconds=seconds)
        return self

    def restart(self, attempt: int) -> "Story":
        return self._append(JobStarted, f"started-{attempt}", queue="training", attempt=attempt)

    def step(
        self,
        step: int,
        train_loss: float,
        val_loss: float | None = None,
        margin: float | None = None,
        **values: object,
    ) -> "Story":
        """A step of a run with two tokens per character, so bits/char = 2 loss / ln 2."""
        return self._append(
            MetricsProgress, f"progress-{step}", **(_numbers(step, train_loss, val_loss, margin) | values)
        )

    def steps(self, losses: Sequence[float]) -> "Story":
        """A step for each loss, one second after the other."""
        with self.run.open_log() as events:
            for step, loss in enumerate(losses, 1):
                self.wait(1)
                fields = _numbers(step, loss, None, None) | {"total_steps": len(losses), "tokens": 64 * step}
                events.append(self._event(MetricsProgress, f"progress-{step}", **fields))
        return self

    def checkpoint(self, step: int) -> "Story":
        return self._append(CheckpointSaved, f"checkpoint-{step}", step=step, val_loss=None, is_best=False)

    def evaluate(self) -> "Story":
        return self._append(
            JobProgress, "evaluating", progress=0.0, message="Evaluating the model.", phase="evaluating"
        )

    def complete(self, train_loss: float | None = None, baseline: Baseline | None = None) -> "Story":
        """End well, 668 seconds after the start."""
        artifact = ArtifactRef(id=self.record.run_id, bytes=1, sha256="a" * 64)
        metrics = {"test_loss": 1.0, "test_perplexity": 2.71828, "bits_per_char": 1.5, "train_loss": train_loss}
        self._append(MetricsCompleted, "metrics", **metrics, artifact=artifact, baseline=baseline)
        self._now += timedelta(seconds=668)
        return self._append(JobCompleted, "completed", result_id=self.record.run_id, result_bytes=1)

    def fail(self, message: str = "The model did not fit.") -> "Story":
        code, kind = ErrorCode.OUT_OF_MEMORY, ErrorClass.FATAL
        return self._append(JobFailed, "failed", error_kind="system", code=code, error_class=kind, message=message)

    def pause(self) -> "Story":
        return self._append(JobPaused, "paused")

    def end_worker(self) -> "Story":
        """The end of the worker, which saves a checkpoint."""
        message = "Paused by the end of the worker; the next worker resumes it."
        return self._append(JobProgress, "worker_ended", progress=0.0, message=message, cause="worker_ended")

    def cancel(self) -> "Story":
        return self._append(JobCancelled, "cancelled")

    def _append(self, event: type[Event], kind: str, **values: object) -> "Story":
        with self.run.open_log() as events:
            events.append(self._event(event, kind, **values))
        return self

    def _event(self, event: type[Event], kind: str, **values: object) -> Event:
        fields: dict[str, object] = {
            "event_id": f"{self.record.run_id}:{kind}",
            "ts": self._now,
            "job_id": self.record.run_id,
            "user_id": self.record.user_id,
            **values,
        }
        return event.model_validate(fields)


def _numbers(step: int, train_loss: float, val_loss: float | None, margin: float | None) -> dict[str, object]:
    val_bits = None if val_loss is None else 2 * val_loss / log(2)
    return {
        **{"epoch": 1 + step * 5 // (TOTAL_STEPS + 1), "total_epochs": 5, "step": step, "total_steps": TOTAL_STEPS},
        **{"progress": min(100, 100 * step / TOTAL_STEPS), "train_loss": train_loss, "train_perplexity": 1.0},
        **{"learning_rate": 2e-3, "grad_norm": 1.0, "tokens_per_second": 2000.0, "chars_per_second": 1000.0},
        **{"eta_seconds": 60.0, "val_loss": val_loss, "best_val_loss": val_loss, "best_val_margin": margin},
        **{"train_bits_per_char": 2 * train_loss / log(2), "val_bits_per_char": val_bits},
        "best_val_bits_per_char": val_bits,
    }
