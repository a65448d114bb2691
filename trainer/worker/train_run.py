"""One attempt at one run, from its request on disk to its manifest on disk; the caller holds the run's lock."""

import threading
from collections.abc import Callable, Iterator, Sequence
from io import BufferedRandom
from pathlib import Path
from time import monotonic
from typing import BinaryIO

import structlog
from torch import Tensor

from trainer.artifacts.checkpoint_files import TrainingState
from trainer.artifacts.event_log import EventLog
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.settings import Settings
from trainer.contracts.base import now
from trainer.contracts.compatibility import check_text_length, is_unidirectional
from trainer.contracts.errors import AppError, ErrorCode, RunError, transient_code
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
from trainer.contracts.inference import EvalMetrics, EvalSplit, perplexity, summary_of
from trainer.contracts.runs import (
    DataFacts,
    ModelFacts,
    RunManifest,
    RunMetrics,
    Timings,
    TokenizerFacts,
)
from trainer.inference.model_files import load_run, save_model
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.system.files import file_records, open_regular, sha256_of
from trainer.tokenizers import is_saved, load_tokenizer
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.checkpoint import CheckpointStore
from trainer.training.dataset import TokenizedCorpus, prepare
from trainer.training.device import Compute, environment, is_out_of_memory, resolve, seed_everything
from trainer.training.evaluation import SAMPLES_PER_PROMPT, TrainingSample, draw_samples, sample_prompts
from trainer.training.loop import SavedCheckpoint, StopReason, TrainingCallbacks, TrainResult, total_steps, train
from trainer.training.progress import CurveRow
from trainer.worker.heartbeat import ALIVE, PHASE, STEP, Heartbeat
from trainer.worker.reevaluation import data_paths, measure_run

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_ARTIFACT_FILES = (
    "model.safetensors",
    "config.json",
    "loss_curve.jsonl",
    "training_samples.jsonl",
    "tokenizer/*",
    "eval/*",
    "checkpoints/scheduled/step-*/*",
)
_FIRST_TELL_SECONDS = 1.0
_LAST_TELL_SECONDS = 60.0
_UNFORESEEN = {
    ErrorCode.OUT_OF_MEMORY: "The training needed more memory than there is: make the model or its batches smaller.",
    ErrorCode.MODEL_TRAIN_FAILED: "Internal error during training; the run's log has the details.",
}


class TrainingAttempt:
    """One attempt at a run, and what it tells the event log on the way; `started` is every attempt's beginning."""

    def __init__(
        self,
        settings: Settings,
        run: RunDirectory,
        events: EventLog,
        started: Sequence[JobStarted],
        pause: threading.Event,
    ) -> None:
        self._settings = settings
        self._run = run
        self._events = events
        self._pause = pause
        self._heartbeat = Heartbeat()
        self._runs = RunStore(settings.app.artifacts_root)
        self._tokenizers = TokenizerStore(settings.app.artifacts_root)
        self._record = run.record()
        self._started = started[0].ts
        self._number = len(started)
        self._begin = self._last_told = monotonic()
        self._validated = False

    def run(self) -> None:
        """Go on from the newest checkpoint, or from the start, until the run ends or has to pause."""
        try:
            self._train()
        except Exception as error:
            # the job's boundary: whatever went wrong becomes the run's recorded end, unless it may go right later
            if transient_code(error) is not None:
                raise
            if isinstance(error, AppError):
                log.error("run_failed", error_code=error.code, reason=error.message)
                self._fail(error)
                return
            code = ErrorCode.OUT_OF_MEMORY if is_out_of_memory(error) else ErrorCode.MODEL_TRAIN_FAILED
            log.exception("run_failed", error_code=code)
            self._fail(AppError(code, _UNFORESEEN[code]))
            if code is ErrorCode.MODEL_TRAIN_FAILED:
                raise

    def _train(self) -> None:
        effective = self._record.effective
        compute = resolve(effective)
        seed_everything(effective.seed)
        self._tell_phase("reading", "Reading the corpus.")
        given = self._given_tokenizer()
        tokenizer, corpus = prepare(effective, *data_paths(self._settings, effective), given)
        if not is_saved(self._run.tokenizer):
            tokenizer.save(self._run.tokenizer)
        self._tokenizers.keep(self._run.tokenizer, tokenizer.manifest)
        tokens = corpus.sizes["train"].tokens
        check_text_length(tokens, effective.max_seq_len, of="the training split", fits=tokens)
        model = build(effective.model, vocabulary_of(tokenizer), effective.objective)
        if effective.objective == "masked_lm" and is_unidirectional(effective.model):
            log.warning("masked_context_one_sided", model_family=effective.model_family)
        store = CheckpointStore(self._run.checkpoints)
        expected: dict[str, Tensor] = model.state_dict()
        recovery = store.recover(expected)
        if recovery.quarantined:
            log.error("checkpoint_quarantined", names=", ".join(recovery.quarantined))
        begin = TrainingState(request_hash=self._record.request_hash)
        if recovery.checkpoint is not None:
            begin = recovery.checkpoint.state
        elif effective.init_from_run_id is not None:
            parent, _ = load_run(self._runs.get(effective.init_from_run_id))
            weights: dict[str, Tensor] = parent.state_dict()
            model.load_state_dict(weights)
        self._tell_config(model, corpus, tokenizer, compute)
        log.info(
            "model_built",
            model_family=effective.model_family,
            tokenizer_id=tokenizer.manifest.tokenizer_id,
            vocab_size=tokenizer.vocab_size,
            params=model.parameter_count(),
        )
        prompts = sample_prompts(corpus, tokenizer, effective.seed)
        if effective.sample_every_steps is not None:
            drawn = begin.processed_step // effective.sample_every_steps
            _opened_at(self._run.training_samples, drawn * len(prompts) * SAMPLES_PER_PROMPT).close()
        with _opened_at(self._run.loss_curve, begin.curve.rows) as curve:
            callbacks = TrainingCallbacks(
                on_row=lambda row: self._add_row(curve, row),
                on_step=self._tell_progress,
                on_saving=lambda: self._heartbeat.beat(PHASE),
                on_checkpoint=self._tell_checkpoint,
                on_sample=lambda step: self._add_samples(model, tokenizer, prompts, step),
                should_stop=self._stop_reason,
            )
            result = train(model, corpus, effective, compute, store, resume=recovery.checkpoint, callbacks=callbacks)
        self._heartbeat.beat(PHASE)
        if result.stopped == "pause":
            self._tell_phase(f"paused:{self._number}", "Paused; it goes on when a worker is there.")
            return
        self._finish(result, model, tokenizer, corpus, compute)

    def _given_tokenizer(self) -> Tokenizer | None:
        """The tokenizer that the run has already, or begins with; None where it makes its own."""
        effective = self._record.effective
        if is_saved(self._run.tokenizer):
            return load_tokenizer(self._run.tokenizer)
        if effective.init_from_run_id is not None:
            return load_tokenizer(self._runs.get(effective.init_from_run_id).tokenizer)
        if effective.tokenizer_id is not None:
            return load_tokenizer(self._tokenizers.folder(effective.tokenizer_id))
        return None

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
        resolved: dict[str, object] = {
            "batch_size": compute.batch_size,
            "precision": compute.precision,
            "data_num_workers": compute.data_num_workers,
            "data_pin_memory": compute.data_pin_memory,
        }
        validation = corpus.sizes["validation"]
        val, best = state.validation_loss_nats, state.history.best_loss_nats
        metrics = RunMetrics(
            train=state.epochs[-1].train_loss_nats if state.epochs else None,
            val=val,
            best=best,
            val_bits_per_char=None if val is None else validation.bits_per_char(val, effective.objective),
            best_bits_per_char=None if best is None else validation.bits_per_char(best, effective.objective),
            auc=state.curve.area,
            initial=state.initial_loss_nats,
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
            unused_settings=record.unused_settings,
            resumed_from_run_id=record.resumed_from_run_id,
            model=ModelFacts(
                family=effective.model_family,
                size=effective.model_size,
                params=model.parameter_count(),
                tied=effective.model.tie_word_embeddings,
                vocab_size=tokenizer.vocab_size,
                dims=effective.model,
            ),
            data=DataFacts(
                corpus=effective.corpus,
                train=corpus.sizes["train"],
                validation=corpus.sizes["validation"],
                test=corpus.sizes.get("test"),
            ),
            tokenizer=TokenizerFacts(id=tokenizer.manifest.tokenizer_id, sha256=tokenizer.manifest.files[0].sha256),
            parent_run_id=effective.init_from_run_id,
            metrics=metrics,
            early_stopped=result.early_stopped,
            best_epoch=state.history.best_epoch,
            steps=state.step,
            timings=Timings(
                created=record.created_at,
                started=self._started,
                finished=now(),
                train_seconds=state.train_seconds,
                epoch_seconds=tuple(epoch.seconds for epoch in state.epochs),
            ),
            environment=environment(compute),
            determinism=compute.determinism,
            seed=effective.seed,
            eval=tuple(summary_of(one) for one in measured),
            files=file_records(self._run.path, _artifact_files(self._run.path)) if completed else (),
        )
        log.info("run_ended", status=manifest.status, steps=manifest.steps)  # who follows the log reads to the end
        finish_run(self._run, self._events, manifest)

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
        metrics = measure_run(self._run, effective, model, tokenizer, corpus, split, compute, precomputed=result.test)
        self._events.append(
            EvalCompleted(
                **self._stamp(f"evaluated:{split}"), split=split, loss=metrics.loss, perplexity=metrics.perplexity
            )
        )
        log.info("evaluated", split=split, step=result.state.step, loss=metrics.loss, perplexity=metrics.perplexity)
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
        self._heartbeat.beat(ALIVE)
        if self._run.cancel_requested():
            return "cancel"
        return "pause" if self._pause.is_set() else None

    def _tell_phase(self, key: str, message: str, progress: float = 0.0) -> None:
        self._events.append(JobProgress(**self._stamp(f"{key}:{self._number}"), progress=progress, message=message))

    def _tell_config(
        self, model: LanguageModel, corpus: TokenizedCorpus, tokenizer: Tokenizer, compute: Compute
    ) -> None:
        effective = self._record.effective
        rows = len(corpus.rows("train", effective.max_seq_len))
        self._events.append(
            MetricsConfig(
                **self._stamp(f"config:{self._number}"),
                model_family=effective.model_family,
                model_size=effective.model_size,
                total_epochs=effective.num_epochs,
                total_steps=total_steps(rows, effective, compute),
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
        self._heartbeat.beat(STEP)
        now_seconds = monotonic()
        wanted = min(max(_FIRST_TELL_SECONDS, (now_seconds - self._begin) / 300), _LAST_TELL_SECONDS)
        if self._validated or now_seconds - self._last_told >= wanted:
            self._validated, self._last_told = False, now_seconds
            progress = read()
            fields: dict[str, object] = progress.model_dump()
            fields |= self._stamp(f"progress:{progress.step}")
            self._events.append(MetricsProgress.model_validate(fields))

    def _add_samples(self, model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], step: int) -> None:
        self._heartbeat.beat(PHASE)
        samples = draw_samples(model, tokenizer, prompts, self._record.effective.seed, self._record.run_id)
        lines = (TrainingSample(step=step, sample=sample).model_dump_json() + "\n" for sample in samples)
        with self._run.training_samples.open("ab") as file:
            file.writelines(line.encode() for line in lines)

    def _add_row(self, curve: BinaryIO, row: CurveRow) -> None:
        curve.write(row.model_dump_json(exclude_none=True).encode() + b"\n")
        curve.flush()
        self._validated = row.val_loss is not None
        if row.step == 0 and row.val_loss is not None:
            self._events.append(
                EvalCompleted(
                    **self._stamp("evaluated:start"),
                    split="validation",
                    loss=row.val_loss,
                    perplexity=perplexity(row.val_loss),
                )
            )
        log.info("training", step=row.step, epoch=row.epoch, loss=row.train_loss)
        if row.val_loss is not None:
            log.info("evaluated", split="validation", step=row.step, epoch=row.epoch, loss=row.val_loss)
        if row.epoch_train_loss is not None:
            log.info("epoch_ended", step=row.step, epoch=row.epoch, loss=row.epoch_train_loss)

    def _tell_checkpoint(self, saved: SavedCheckpoint) -> None:
        key = f"checkpoint:{saved.step}:{saved.val_loss}"
        self._events.append(
            CheckpointSaved(**self._stamp(key), step=saved.step, val_loss=saved.val_loss, is_best=saved.is_best)
        )

    def _stamp(self, key: str) -> Stamp:
        return stamp(self._record.run_id, self._record.user_id, key)


def _opened_at(path: Path, rows: int) -> BinaryIO:
    """Open a file of lines for appending, cut back to those that the checkpoint knows of."""
    file = BufferedRandom(open_regular(path, "a+b"))
    file.seek(0)
    for _ in range(rows):
        file.readline()
    file.truncate(file.tell())
    return file


def _artifact_files(folder: Path) -> Iterator[Path]:
    for pattern in _ARTIFACT_FILES:
        yield from folder.glob(pattern)
