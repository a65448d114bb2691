"""The training child: one attempt at one run, from its request on disk to its manifest on disk."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import BinaryIO

import structlog

from trainer.checkpoint import CheckpointStore
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.events import (
    ArtifactRef,
    CheckpointSaved,
    EvalCompleted,
    JobProgress,
    JobStarted,
    MetricsCompleted,
    MetricsConfig,
    MetricsProgress,
    Progress,
    Stamp,
    stamp,
)
from trainer.contracts.inference import EvalMetrics, EvalSplit
from trainer.contracts.runs import (
    DataFacts,
    EvalSummary,
    ModelFacts,
    RunManifest,
    RunMetrics,
    Timings,
    TokenizerFacts,
)
from trainer.contracts.settings import Settings
from trainer.data.batches import Rows
from trainer.data.tokens import TokenizedCorpus, prepare
from trainer.device import Compute, environment, is_out_of_memory, resolve, seed_everything
from trainer.event_log import EventLog
from trainer.files import file_records, sha256_of
from trainer.logs import add_log_file, setup_logging
from trainer.model_artifact import save_model
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.tokenizers import is_saved, load_tokenizer
from trainer.tokenizers.base import Tokenizer
from trainer.training import (
    CurveRow,
    Listeners,
    SavedCheckpoint,
    StopReason,
    TrainResult,
    steps_in_epoch,
    train,
)
from trainer.worker.measure import measure_run, places
from trainer.worker.supervisor import LOCKED_EXIT_CODE

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_FIRST_TELL_SECONDS = 1.0
_LAST_TELL_SECONDS = 60.0
_UNFORESEEN = {
    ErrorCode.OUT_OF_MEMORY: "The training needed more memory than there is: make the model or its batches smaller.",
    ErrorCode.MODEL_TRAIN_FAILED: "The training failed by a fault of the program; the run's log has the details.",
}


def run_child(settings: Settings, run_id: str) -> int:
    """Train a run as its only writer; return 0 when it has ended or was paused, 75 where another child has it."""
    run = RunStore(settings.app.artifacts_root).get(run_id)
    lock = run.lock()
    if lock is None:
        return LOCKED_EXIT_CODE
    with lock, run.open_log() as events:
        setup_logging(settings, "model-trainer-worker", sys.stderr)
        add_log_file(run.logs, "model-trainer-worker")
        structlog.contextvars.bind_contextvars(run_id=run_id)
        end = run.manifest()
        if end is not None or run.cancel_requested():
            finish_run(run, events, end or manifest_of(run.record(), "cancelled"))
            return 0
        _Attempt(settings, run, events, _pause_requests()).run()
    return 0


def _pause_requests() -> threading.Event:
    """Set when the worker asks us to stop, or is gone: its end of our standard input closes."""
    pause = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: pause.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch_pipe() -> None:
        os.read(0, 1)
        pause.set()

    threading.Thread(target=watch_pipe, daemon=True).start()
    return pause


class _Attempt:
    """One attempt at a run, and what it tells the event log on the way."""

    def __init__(self, settings: Settings, run: RunDirectory, events: EventLog, pause: threading.Event) -> None:
        self._settings = settings
        self._run = run
        self._events = events
        self._pause = pause
        self._record = run.record()
        starts = [event for event in run.reader().read_new() if isinstance(event, JobStarted)]
        self._started = starts[0].ts if starts else now()
        self._number = 1 + len(starts)
        self._begin = self._last_told = monotonic()
        self._validated = False

    def run(self) -> None:
        """Go on from the newest checkpoint, or from the start, until the run ends or has to pause."""
        self._events.append(
            JobStarted(**self._stamp(f"started:{self._number}"), queue=self._settings.queue.name, attempt=self._number)
        )
        log.info("attempt started", attempt=self._number)
        try:
            self._train()
        except AppError as error:
            log.error("run failed", error_code=error.code, reason=error.message)
            self._fail(error)
        except Exception as error:
            # the job's boundary: whatever went wrong becomes the run's recorded end
            code = ErrorCode.OUT_OF_MEMORY if is_out_of_memory(error) else ErrorCode.MODEL_TRAIN_FAILED
            log.exception("run failed", error_code=code)
            self._fail(AppError(code, _UNFORESEEN[code]))
            if code is ErrorCode.MODEL_TRAIN_FAILED:
                raise

    def _train(self) -> None:
        effective = self._record.effective
        compute = resolve(effective)
        seed_everything(effective.seed)
        self._tell_phase("reading", "Reading the corpus.")
        saved = load_tokenizer(self._run.tokenizer) if is_saved(self._run.tokenizer) else None
        tokenizer, corpus = prepare(effective, *places(self._settings, effective), saved)
        if saved is None:
            tokenizer.save(self._run.tokenizer)
        model = build(effective.model, tokenizer.vocab_size)
        store = CheckpointStore(self._run.checkpoints)
        recovery = store.recover()
        if recovery.set_aside:
            log.error("broken checkpoints set aside", names=", ".join(recovery.set_aside))
        resumed_rows = 0 if recovery.checkpoint is None else recovery.checkpoint.state.curve.rows
        self._tell_config(model, corpus, tokenizer, compute)
        with _curve(self._run.loss_curve, resumed_rows) as curve:
            listeners = Listeners(
                on_row=lambda row: self._add_row(curve, row),
                on_step=self._tell_progress,
                on_checkpoint=self._tell_checkpoint,
                should_stop=self._stop_reason,
            )
            result = train(model, corpus, effective, compute, store, resume=recovery.checkpoint, listeners=listeners)
        if result.stopped == "pause":
            self._tell_phase(f"paused:{self._number}", "Paused; it goes on when a worker is there.")
            return
        self._finish(result, model, tokenizer, corpus, compute)

    def _finish(
        self,
        result: TrainResult,
        model: LanguageModel,
        tokenizer: Tokenizer,
        corpus: TokenizedCorpus,
        compute: Compute,
    ) -> None:
        """Write what is left of a cancelled run, or the artifact of a completed one, and its end."""
        record, effective, state = self._record, self._record.effective, result.state
        completed = result.stopped is None
        resolved: dict[str, object] = {"batch_size": compute.batch_size}
        metrics = RunMetrics(
            train=state.epochs[-1].train_loss_nats if state.epochs else None,
            val=state.validation_loss_nats,
            best=state.history.best_loss_nats,
            auc=state.curve.area,
        )
        measured: tuple[EvalMetrics, ...] = ()
        if completed:
            save_model(self._run.path, model, effective.model)
            measured = (self._evaluate(result, model, tokenizer, corpus, compute),)
            metrics = self._tell_result(metrics, measured[0])
        manifest = RunManifest(
            run_id=record.run_id,
            status="completed" if completed else "cancelled",
            request=record.request,
            effective=effective.model_copy(update=resolved),
            request_hash=record.request_hash,
            requested_paths=record.requested_paths,
            model=ModelFacts(
                family=effective.model_family,
                size=effective.model_size,
                params=model.parameter_count(),
                tied=effective.model.tied,
                vocab_size=tokenizer.vocab_size,
                dims=effective.model,
            ),
            data=DataFacts(
                corpus=effective.corpus,
                train=corpus.sizes["train"],
                validation=corpus.sizes["validation"],
                test=corpus.sizes.get("test"),
            ),
            tokenizer=TokenizerFacts(
                id=tokenizer.manifest.tokenizer_id, sha256=sha256_of(self._run.tokenizer / "tokenizer.json")
            ),
            metrics=metrics,
            early_stopped=result.early_stopped,
            best_epoch=state.history.best_epoch,
            steps=state.step,
            timings=Timings(
                created=record.created_at,
                started=self._started,
                finished=now(),
                train_seconds=state.train_seconds,
            ),
            environment=environment(compute),
            determinism=compute.determinism,
            seed=effective.seed,
            eval=tuple(EvalSummary(split=m.split, loss=m.loss, perplexity=m.perplexity) for m in measured),
            files=file_records(self._run.path, _artifact_files(self._run.path)) if completed else (),
        )
        finish_run(self._run, self._events, manifest)
        log.info("run ended", status=manifest.status, steps=manifest.steps)

    def _evaluate(
        self,
        result: TrainResult,
        model: LanguageModel,
        tokenizer: Tokenizer,
        corpus: TokenizedCorpus,
        compute: Compute,
    ) -> EvalMetrics:
        """Measure the best weights on the test split, or on validation where the run has no test split."""
        split: EvalSplit = "test" if "test" in corpus.ids else "validation"
        effective = self._record.effective
        metrics = measure_run(self._run, effective, model, tokenizer, corpus, split, compute, found=result.test)
        self._events.append(
            EvalCompleted(
                **self._stamp(f"evaluated:{split}"), split=split, loss=metrics.loss, perplexity=metrics.perplexity
            )
        )
        return metrics

    def _tell_result(self, metrics: RunMetrics, measured: EvalMetrics) -> RunMetrics:
        """Tell the artifact and what it does on the test split, where the run has one."""
        weights = self._run.path / "model.safetensors"
        test = measured if measured.split == "test" else None
        loss, perplexity, bits = (test.loss, test.perplexity, test.bits_per_char) if test else (None, None, None)
        self._events.append(
            MetricsCompleted(
                **self._stamp("measured:0"),
                test_loss=loss,
                test_perplexity=perplexity,
                bits_per_char=bits,
                artifact=ArtifactRef(id=self._record.run_id, bytes=weights.stat().st_size, sha256=sha256_of(weights)),
            )
        )
        figures: dict[str, object] = {"test": loss, "test_perplexity": perplexity, "bits_per_char": bits}
        return metrics.model_copy(update=figures)

    def _fail(self, error: AppError) -> None:
        finish_run(self._run, self._events, manifest_of(self._record, "failed", error=RunError.of(error)))

    def _stop_reason(self) -> StopReason | None:
        if self._run.cancel_requested():
            return "cancel"
        return "pause" if self._pause.is_set() else None

    def _tell_phase(self, key: str, message: str, progress: float = 0.0) -> None:
        self._events.append(JobProgress(**self._stamp(f"{key}:{self._number}"), progress=progress, message=message))

    def _tell_config(
        self, model: LanguageModel, corpus: TokenizedCorpus, tokenizer: Tokenizer, compute: Compute
    ) -> None:
        effective = self._record.effective
        steps = steps_in_epoch(len(Rows(corpus.ids["train"], effective.max_seq_len)), effective, compute)
        total_steps = steps * effective.num_epochs
        self._events.append(
            MetricsConfig(
                **self._stamp(f"config:{self._number}"),
                model_family=effective.model_family,
                model_size=effective.model_size,
                total_epochs=effective.num_epochs,
                total_steps=min(total_steps, effective.max_steps or total_steps),
                batch_size=compute.batch_size,
                learning_rate=effective.learning_rate,
                params=model.parameter_count(),
                vocab_size=tokenizer.vocab_size,
                device=str(compute.device),
                precision=compute.precision,
                threads=compute.threads,
                tokenizer_id=tokenizer.manifest.tokenizer_id,
            )
        )

    def _tell_progress(self, read: Callable[[], Progress]) -> None:
        """Tell how training stands: at each validation; else each second at first, ever more rarely later."""
        now_seconds = monotonic()
        wanted = min(max(_FIRST_TELL_SECONDS, (now_seconds - self._begin) / 300), _LAST_TELL_SECONDS)
        if self._validated or now_seconds - self._last_told >= wanted:
            self._validated, self._last_told = False, now_seconds
            progress = read()
            fields: dict[str, object] = progress.model_dump()
            fields |= self._stamp(f"progress:{progress.step}")
            self._events.append(MetricsProgress.model_validate(fields))

    def _add_row(self, curve: BinaryIO, row: CurveRow) -> None:
        curve.write(row.model_dump_json(exclude_none=True).encode() + b"\n")
        curve.flush()
        self._validated = row.val_loss is not None
        log.info("training", step=row.step, epoch=row.epoch, loss=row.train_loss, val_loss=row.val_loss)

    def _tell_checkpoint(self, saved: SavedCheckpoint) -> None:
        key = f"checkpoint:{saved.step}:{saved.val_loss}"
        self._events.append(
            CheckpointSaved(**self._stamp(key), step=saved.step, val_loss=saved.val_loss, is_best=saved.is_best)
        )

    def _stamp(self, key: str) -> Stamp:
        return stamp(self._record.run_id, self._record.user_id, key)


def _curve(path: Path, rows: int) -> BinaryIO:
    """Open the loss curve for appending, cut back to the rows that the checkpoint knows of."""
    file = path.open("a+b")
    file.seek(0)
    for _ in range(rows):
        file.readline()
    file.truncate(file.tell())
    return file


def _artifact_files(folder: Path) -> Iterator[Path]:
    for pattern in ("model.safetensors", "config.json", "loss_curve.jsonl", "tokenizer/*", "eval/*"):
        yield from folder.glob(pattern)
