"""Status of a run, folded from its event log."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from trainer.artifacts.event_log import EventReader, is_progress
from trainer.contracts.base import RunState, StopCause, Timestamp, WaitReason, changed
from trainer.contracts.errors import RunError
from trainer.contracts.events import (
    CheckpointSaved,
    Event,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobPaused,
    JobProgress,
    JobQueued,
    JobStarted,
    MetricsCompleted,
    MetricsConfig,
    MetricsProgress,
)
from trainer.contracts.models import NgramConfig
from trainer.contracts.runs import Annotations, RunManifest, RunRecord, RunStatus
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.reports.leak_notes import leak_warnings

PAUSED = "Paused until it is resumed."
_WAITS: dict[StopCause, WaitReason] = {"disk_full": "disk_space", "disk_unwritable": "disk"}
_STATUS_FIELDS: set[str] = {*RunStatus.model_fields} - {"user_id", "leaks", "notes", "baseline"}
"""Fields that a status takes from the events that have them: numbers and texts, and none of the run's record."""
_CONFIG_FIELDS = _STATUS_FIELDS - {"model_family", "model_size", "learning_rate"}
"""Without those that a status has from elsewhere."""
_OF_VALIDATION = {
    *("val_loss", "best_val_loss", "best_val_margin", "best_epoch", "val_bits_per_char", "best_val_bits_per_char"),
}
"""Figures that stay until the next validation."""
_PROGRESS_FIELDS = _STATUS_FIELDS - _OF_VALIDATION
_OF_STEPS = {"learning_rate", "grad_norm", "eta_seconds"}
"""Figures that a model without steps does not have."""
_NO_EVALUATION = (b'"val_loss":null,', b'"val_bits_per_char":null,')
_AT_A_START: dict[str, object] = {"phase": None, "stopped_by": None, "waits_for": None}
_TRAINING: dict[str, object] = {"message": "Training.", "phase": "training"}


class RunFollower:
    """Status of a run, updated from its event log."""

    def __init__(
        self, record: RunRecord, reader: EventReader, annotations: Annotations, unlocked: RunManifest | None = None
    ) -> None:
        """`unlocked` is the manifest of a run whose locked test split was read after its end."""
        self.record = record
        self.annotations = annotations
        self._reader = reader
        self._unlocked = unlocked
        self._validation: dict[str, object] = {}
        """Figures of validations that `status` does not have yet."""
        self.status = RunStatus(  # after the events read so far
            run_id=record.run_id,
            status="queued",
            reachable=True,
            message=WAIT_MESSAGES["turn"],
            waits_for="turn",
            progress=0.0,
            epoch=0,
            total_epochs=record.effective.num_epochs,
            step=0,
            created_at=record.created_at,
            user_id=record.user_id,
            owner=None if record.owner is None else str(record.owner),
            model_family=record.effective.model_family,
            objective=record.effective.objective,
            is_bidirectional=record.effective.is_bidirectional,
            model_size=record.effective.model_size,
            attempt=0,
            label=record.effective.label,
            seed=record.effective.seed,
            group=record.group,
            test_access=record.effective.test,
            leaks=record.leaks,
            warnings=leak_warnings(record.effective, record.leaks),
            notes=record.notes,
            tags=record.effective.tags if annotations.tags is None else annotations.tags,
            note=annotations.note or None,
        )

    def refresh(self) -> RunStatus:
        """Read the new events and return the status after them."""
        deque(self.read_lines(), maxlen=0)
        return self.status

    def read_lines(self) -> Iterator[list[bytes]]:
        """Read and yield the lines of the new events, some thousands at a time, and update the status."""
        for lines in self._reader.lines():
            self._follow(self._reader.parsed(_telling(lines)))
            yield lines

    def read_new(self) -> Iterator[Event]:
        """Read and yield the new events, and update the status."""
        for lines in self._reader.lines():
            events = self._reader.parsed(lines)
            self._follow(events)
            yield from events

    def _follow(self, events: Sequence[Event]) -> None:
        for event, following in zip_longest(events, events[1:]):
            if isinstance(event, MetricsProgress) and isinstance(following, MetricsProgress):
                self._add_validation(event)  # the next event has all other figures
            else:
                self.status = self.status.model_copy(update=self._changes(event))

    @property
    def ended(self) -> bool:
        return self.status.has_ended

    def _changes(self, event: Event) -> dict[str, object]:
        changes: dict[str, object] = {"last_heartbeat_ts": event.ts.timestamp()}
        match event:
            case JobStarted():
                started = self.status.started_at or event.ts
                changes |= {"status": "running", "message": "Started.", "attempt": event.attempt, "started_at": started}
                changes |= _AT_A_START
            case JobQueued():
                changes |= {"status": "queued", "message": WAIT_MESSAGES["turn"], "waits_for": "turn"}
            case JobProgress():
                # a later attempt, while it reads its corpus again, does not lower the progress
                changes |= {"message": event.message, "progress": max(event.progress, self.status.progress)}
                changes |= {"phase": event.phase, "stopped_by": event.cause, "waits_for": None}
                changes |= {} if event.cause is None else _stopped_by(event.cause)
            case MetricsConfig():
                config: dict[str, object] = event.model_dump(include=_CONFIG_FIELDS)
                warnings = leak_warnings(self.record.effective, event.leaks)
                changes |= config | _TRAINING
                changes |= {"leaks": event.leaks, "warnings": warnings}
                changes |= {"notes": event.notes}
            case MetricsProgress():
                changes |= self._training_changes(event)
            case CheckpointSaved():
                # the last progress event may be several steps old
                changes |= {
                    "last_checkpoint_step": event.step,
                    "last_checkpoint_ts": event.ts.timestamp(),
                    "step": max(event.step, self.status.step),
                }
            case MetricsCompleted():
                event = event if self._unlocked is None else _with_test(event, self._unlocked)
                result: dict[str, object] = event.model_dump(include=_STATUS_FIELDS)
                changes |= result | {"artifact_bytes": event.artifact.bytes, "artifact_sha256": event.artifact.sha256}
                if event.baseline is not None:
                    leaks = leak_warnings(self.record.effective, self.status.leaks)
                    changes |= {"baseline": event.baseline, "warnings": (*leaks, *event.baseline.warnings())}
            case JobPaused() | JobCompleted() | JobFailed() | JobCancelled():
                changes |= _stop(event)
            case _:
                pass
        return changes

    def _training_changes(self, event: MetricsProgress) -> dict[str, object]:
        self._add_validation(event)
        is_counted = isinstance(self.record.effective.model, NgramConfig)
        progress: dict[str, object] = event.model_dump(include=_PROGRESS_FIELDS - (_OF_STEPS if is_counted else set()))
        validation, self._validation = self._validation, {}
        return validation | progress | _TRAINING

    def _add_validation(self, event: MetricsProgress) -> None:
        known: dict[str, object] = event.model_dump(include=_OF_VALIDATION, exclude_none=True)
        self._validation |= known


def _with_test(event: MetricsCompleted, manifest: RunManifest) -> MetricsCompleted:
    """Return the numbers of a run's end with those of a test split that was read later."""
    metrics = manifest.metrics
    return changed(
        event,
        test_loss=metrics.test,
        test_perplexity=metrics.test_perplexity,
        bits_per_char=metrics.bits_per_char,
        baseline=manifest.reported_baseline,
    )


def _telling(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Yield lines without the progress that the next line replaces: an event without an evaluation has no new best."""
    are_progress = [*map(is_progress, lines), False]
    for index, line in enumerate(lines):
        is_replaced = are_progress[index] and are_progress[index + 1]
        if not (is_replaced and _NO_EVALUATION[0] in line and _NO_EVALUATION[1] in line):
            yield line


def _stopped_by(cause: StopCause) -> dict[str, object]:
    """Return the changes of a status by the end of an attempt, after which the run continues."""
    is_queued = cause in ("worker_ended", "not_started")
    waits_for = "turn" if is_queued else _WAITS.get(cause)
    return {"waits_for": waits_for, "eta_seconds": None} | ({"status": "queued"} if is_queued else {})


def _stop(event: JobPaused | JobCompleted | JobFailed | JobCancelled) -> dict[str, object]:
    """Return the changes of a status by a pause or an end."""
    match event:
        case JobPaused():
            return {"status": "paused", "message": PAUSED, "eta_seconds": None} | _AT_A_START
        case JobCompleted():
            return _end("completed", "Completed.", event.ts) | {"progress": 100.0}
        case JobFailed():
            error = RunError(code=event.code, error_class=event.error_class, message=event.message)
            return _end("failed", event.message, event.ts) | {"error": error}
        case _:
            return _end("cancelled", "Cancelled.", event.ts)


def _end(state: RunState, message: str, at: Timestamp) -> dict[str, object]:
    return {"status": state, "message": message, "eta_seconds": None, "finished_at": at} | _AT_A_START
