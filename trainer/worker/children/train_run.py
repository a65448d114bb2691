"""One attempt at one run, from its request on disk to its manifest on disk; the caller holds the run's lock."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BufferedRandom
from pathlib import Path
from time import monotonic, process_time
from typing import BinaryIO, NamedTuple

import structlog
from torch import Tensor

from trainer.artifacts.checkpoint_files import TrainingState
from trainer.artifacts.checkpoints import named_model
from trainer.artifacts.event_log import EventLog
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.presets import check_checkpoint
from trainer.config.settings import Settings
from trainer.config.tokenizer_request import record_of_run, run_source
from trainer.contracts.base import Phase, changed, now
from trainer.contracts.baselines import Baseline, Baselines
from trainer.contracts.errors import AppError, ErrorCode, RunError, transient_code
from trainer.contracts.evaluations import EvalMetrics, EvalSplit, summary_of
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
from trainer.contracts.generations import TrainingSample
from trainer.contracts.models import ModelConfig, RnnConfig
from trainer.contracts.runs import (
    DataFacts,
    EffectiveRequest,
    ModelFacts,
    RunMetrics,
    RunRecord,
    Timings,
    TokenizerFacts,
    largest_unknown_char_share,
)
from trainer.contracts.units import perplexity
from trainer.contracts.wording import STOP_MESSAGES, distinct
from trainer.data.corpora import CorpusStore
from trainer.data.line_keys import lines_of_corpus
from trainer.inference.model_files import WEIGHTS_FILE, load_named, save_model
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.models.ngram import NgramModel
from trainer.reports.leak_notes import leak_warnings
from trainer.system.files import file_records, open_regular, sha256_of
from trainer.system.hardware import memory_held_bytes
from trainer.system.heartbeat import ALIVE, PHASE, STEP, Heartbeat
from trainer.system.logs import LogReader
from trainer.system.signals import StopFlag
from trainer.tokenizers import is_saved, load_tokenizer
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.baseline import counted_validation_loss, measure_baselines
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.counted_splits import SplitCounts
from trainer.training.counting import count, evaluate_counted
from trainer.training.dataset import TokenizedCorpus, prepare
from trainer.training.device import Compute, environment, is_out_of_memory, resolve, seed_everything
from trainer.training.evaluation import SAMPLES_PER_PROMPT, draw_samples, measure, sample_prompts
from trainer.training.loop import (
    SavedCheckpoint,
    StopReason,
    TrainingCallbacks,
    TrainResult,
    steps_per_epoch,
    total_steps,
    train,
)
from trainer.training.processes import ONE_PROCESS, Processes
from trainer.training.progress import CurveRow
from trainer.worker.children.evaluate_run import (
    counts_of_run,
    data_paths,
    leaks_of_run,
    store_evaluation,
    store_test_lines,
)
from trainer.worker.children.pace import choose_by_speed

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
_OF_TOKENIZER = '"event": "tokenizer_'
_LOG_LINES = 1000
_MIN_PROGRESS_SECONDS, _MAX_PROGRESS_SECONDS = 1.0, 60.0
"""Limits of the time between two progress events."""
PEER_SECONDS = 5.0
"""Time in which torchrun ends this process if its error is the consequence of another process's end."""
_UNFORESEEN = {
    ErrorCode.OUT_OF_MEMORY: "The training needed more memory than there is: make the model or its batches smaller.",
    ErrorCode.MODEL_TRAIN_FAILED: "Internal error during training; the run's log has the details.",
}


class Parts(NamedTuple):
    """Everything that an attempt trains, in memory."""

    model: LanguageModel
    tokenizer: Tokenizer
    corpus: TokenizedCorpus
    compute: Compute
    store: CheckpointStore
    checkpoint: Checkpoint | None
    """The checkpoint to resume from."""


def load_parts(settings: Settings, run: RunDirectory, processes: Processes = ONE_PROCESS) -> Parts:
    """Load what a run trains; train its tokenizer, tokenize its corpus and recover its checkpoints where necessary.

    The first process does so before the others, which then find everything in the run and the cache.
    """
    with processes.first_goes_ahead():
        record = run.record()
        effective = record.effective
        compute = resolve(effective, processes.count)
        seed_everything(effective.seed)
        tokenizers = TokenizerStore(settings.app.artifacts_root)
        runs = RunStore(settings.app.artifacts_root)
        given = _given_tokenizer(run, runs, tokenizers, record)
        if given is None:
            log.info("tokenizer_training_started")
        tokenizer, corpus = prepare(effective, *data_paths(settings, effective), given)
        corpus = corpus.without_test() if effective.test == "locked" else corpus
        if not is_saved(run.tokenizer):
            tokenizer.save(run.tokenizer)
        if given is None:
            log.info("tokenizer_trained", tokenizer_id=tokenizer.manifest.tokenizer_id, vocab_size=tokenizer.vocab_size)
        if effective.tokenizer_id is None:
            lines = (line for line in LogReader(run.logs).last(_LOG_LINES) if _OF_TOKENIZER in line)
            tokenizers.store_copy(record_of_run(record, tokenizer.manifest), run.tokenizer, lines)
        model = _new_model(effective, tokenizer, processes)
        if effective.objective == "masked_lm" and is_unidirectional(effective.model):
            log.warning("masked_context_one_sided", model_family=effective.model_family)
        store = CheckpointStore(run.checkpoints)
        expected: dict[str, Tensor] = model.state_dict()
        checkpoint, quarantined = store.recover(expected)
    if quarantined:
        log.error("checkpoint_quarantined", names=", ".join(quarantined))
    if checkpoint is None and effective.init_from_run_id is not None:
        _load_parent(model, runs, effective.init_from_run_id)
    if checkpoint is not None:
        check_checkpoint(record, checkpoint.state.request_hash)
    if checkpoint is not None and checkpoint.state.request_hash == record.checkpoint_request_hash:
        steps = total_steps(len(corpus.rows("train", effective.max_seq_len)), effective, compute)
        is_last = checkpoint.state.step >= steps
        state = changed(checkpoint.state, request_hash=record.request_hash, is_last_step=is_last)
        checkpoint = checkpoint._replace(state=state)
    return Parts(model, tokenizer, corpus, compute, store, checkpoint)


def unforeseen_error(error: Exception) -> AppError:
    """Return the error that a run fails with where the program has no message for what was raised."""
    code = ErrorCode.OUT_OF_MEMORY if is_out_of_memory(error) else ErrorCode.MODEL_TRAIN_FAILED
    return AppError(code, _UNFORESEEN[code])


def _new_model(effective: EffectiveRequest, tokenizer: Tokenizer, processes: Processes = ONE_PROCESS) -> LanguageModel:
    model = build(effective.model, vocabulary_of(tokenizer), effective.objective)
    model.threads_are_fixed = effective.threads > 0 or processes.count > 1
    return model


def _load_parent(model: LanguageModel, runs: RunStore, name: str) -> None:
    """Load the weights that a warm start begins with."""
    parent, _ = load_named(named_model(runs, name))
    weights: dict[str, Tensor] = parent.state_dict()
    model.load_state_dict(weights)


def _given_tokenizer(
    run: RunDirectory, runs: RunStore, tokenizers: TokenizerStore, record: RunRecord
) -> Tokenizer | None:
    """Return the tokenizer that a run has saved or starts with; None if the run trains its own.

    A run of a file that names a tokenizer folder starts with the tokenizer that an equal run has trained.
    """
    effective = record.effective
    if is_saved(run.tokenizer):
        return load_tokenizer(run.tokenizer)
    if effective.parent_run_id is not None:
        return load_tokenizer(runs.get(effective.parent_run_id).tokenizer)
    if effective.tokenizer_id is not None:
        return load_tokenizer(tokenizers.get(effective.tokenizer_id).path)
    equal = None if record.requested_paths is None else tokenizers.of_equal_run(run_source(effective))
    if equal is not None:
        with suppress(AppError):  # a damaged one is trained again
            found = load_tokenizer(equal.path)
            log.info("tokenizer_found", tokenizer_id=equal.tokenizer_id)
            return found
    return None


class TrainingAttempt:
    """One attempt at a run, with the events that it logs; `started` has one event per attempt so far."""

    def __init__(
        self,
        settings: Settings,
        run: RunDirectory,
        events: EventLog,
        started: Sequence[JobStarted],
        pause: StopFlag,
        processes: Processes = ONE_PROCESS,
    ) -> None:
        self._processes = processes
        self._settings, self._run, self._events, self._pause = settings, run, events, pause
        self._heartbeat = Heartbeat()
        self._record = run.record()
        self._effective = self._record.effective
        self._looks = LookLedger.of(settings)
        self._started = started[0].ts
        self._number = len(started)
        self._begin = self._progress_at = monotonic()
        self._progress_cpu = process_time()
        self._validated = False

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, until the run ends or has to pause."""
        try:
            self._train()
        except Exception as error:
            # the job's boundary: every error becomes the run's recorded end, unless a later attempt can succeed
            if transient_code(error) is not None:
                raise
            if isinstance(error, AppError):
                log.error("run_failed", error_code=error.code, reason=error.message)
                self._fail(error)
                return
            if self._processes.count > 1 and self._pause.wait(PEER_SECONDS):
                raise  # another process has failed first
            unforeseen = unforeseen_error(error)
            log.exception("run_failed", error_code=unforeseen.code)
            self._fail(unforeseen)
            if unforeseen.code is ErrorCode.MODEL_TRAIN_FAILED:
                raise

    def _train(self) -> None:
        if self._effective.minutes is not None:
            self._choose_by_speed()
        self._log_phase("reading", "Reading the corpus.")
        parts = load_parts(self._settings, self._run, self._processes)
        if self._processes.is_first:
            self._compare_held_out(is_new=parts.checkpoint is None)
        parts = parts._replace(
            corpus=parts.corpus.with_leaks(leaks_of_run(parts.corpus, self._effective, self._settings))
        )
        effective = self._effective
        model, tokenizer, corpus, compute, store, checkpoint = parts
        counting_seconds = 0.0
        if isinstance(model, NgramModel):
            self._heartbeat.beat(PHASE)
            self._log_phase("training", "Counting n-grams.")
            model, counting_seconds = count(model, corpus)
            parts = parts._replace(model=model)
        self._heartbeat.beat(PHASE)
        counts = counts_of_run(corpus, tokenizer, self._record.run_id, effective, self._settings)
        self._log_config(parts, counts)
        start = TrainingState(request_hash=self._record.request_hash) if checkpoint is None else checkpoint.state
        prompts = sample_prompts(corpus, tokenizer, effective)
        if effective.sample_every_steps is not None:
            drawn = start.processed_step // effective.sample_every_steps
            _opened_at(self._run.training_samples, drawn * len(prompts) * SAMPLES_PER_PROMPT).close()
        with _opened_at(self._run.loss_curve, start.curve.rows) as curve:
            callbacks = TrainingCallbacks(
                on_row=lambda row: self._add_row(curve, row),
                on_step=self._log_progress,
                on_saving=self._before_saving,
                on_checkpoint=self._log_checkpoint,
                on_test=lambda: self._before_test(corpus),
                on_sample=lambda step: self._add_samples(parts, prompts, step),
                should_stop=self._stop_reason,
            )
            if isinstance(model, NgramModel):
                result = evaluate_counted(model, counting_seconds, corpus, effective, compute, callbacks)
            else:
                result = train(
                    model,
                    corpus,
                    effective,
                    compute,
                    store,
                    resume=checkpoint,
                    callbacks=callbacks,
                    processes=self._processes,
                    seconds_before=monotonic() - self._begin,
                )
        self._end(result, parts, counts)

    def _end(self, result: TrainResult, parts: Parts, counts: SplitCounts | None) -> None:
        """Record why the attempt ends: a pause, the end of the worker, or the end of the run."""
        self._heartbeat.beat(PHASE)
        if result.stopped == "pause" and self._run.pause_requested():
            self._run.write_pause(self._events)
        elif result.stopped == "pause":
            stamped = self._stamp(f"worker_ended:{self._number}")
            message = STOP_MESSAGES["worker_ended"]
            self._events.append(JobProgress(**stamped, progress=0.0, message=message, cause="worker_ended"))
        else:
            self._finish(result, parts, counts)

    def _finish(self, result: TrainResult, parts: Parts, counts: SplitCounts | None) -> None:
        """Write the artifact of a completed run, and the end of a completed or cancelled run."""
        model, tokenizer, corpus, compute, _, _ = parts
        record, effective, state = self._record, self._effective, result.state
        completed = result.stopped is None
        baselines, measured = self._evaluate(result, parts, counts) if completed else ({}, None)
        test = measured if measured is not None and measured.split == "test" else None
        training, validation = corpus.sizes["train"], corpus.sizes["validation"]
        train = state.epochs[-1].train_loss_nats if state.epochs else None
        val, best = state.validation_loss_nats, state.history.best_loss_nats
        metrics = RunMetrics(
            train=train,
            val=val,
            best=best,
            best_margin=state.history.best_margin_nats,
            train_bits_per_char=None if train is None else training.bits_per_char(train, effective.objective),
            val_bits_per_char=None if val is None else validation.bits_per_char(val, effective.objective),
            best_bits_per_char=None if best is None else validation.bits_per_char(best, effective.objective),
            auc=state.curve.area,
            initial=state.initial_loss_nats,
            test=None if test is None else test.loss,
            test_perplexity=None if test is None else test.perplexity,
            bits_per_char=None if test is None else test.bits_per_char,
        )
        if completed:
            self._log_result(metrics, result, None if measured is None else measured.baseline)
        manifest = changed(
            manifest_of(record, "completed" if completed else "cancelled"),
            effective=changed(
                effective,
                batch_size=compute.batch_size,
                precision=compute.precision,
                data_num_workers=compute.data_num_workers,
                data_pin_memory=compute.data_pin_memory,
            ),
            model=ModelFacts(
                family=effective.model_family,
                size=effective.model_size,
                params=model.parameter_count(),
                tied=effective.model.tie_word_embeddings,
                vocab_size=tokenizer.vocab_size,
                dims=model.built_from,
            ),
            data=DataFacts(
                corpus=effective.corpus,
                train=training,
                validation=validation,
                test=corpus.sizes.get("test"),
                notes=self._notes(corpus),
            ),
            tokenizer=TokenizerFacts(id=tokenizer.manifest.tokenizer_id, sha256=tokenizer.manifest.files[0].sha256),
            parent_run_id=effective.parent_run_id,
            metrics=metrics,
            baselines=baselines,
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
            environment=environment(
                compute,
                self._processes.count,
                self._processes.backend,
                None if model.threads_are_fixed else model.threads("training"),
            ),
            determinism=compute.determinism,
            eval=() if measured is None else (summary_of(measured),),
            test_looks=self._looks.count(effective) if completed else None,
            files=file_records(self._run.path, self._artifact_files()) if completed else (),
        )
        log.info("run_ended", status=manifest.status, steps=manifest.steps)  # readers of the log stop at the end
        finish_run(self._run, self._events, manifest)

    def _choose_by_speed(self) -> None:
        """Measure a training that has not begun in the first process, and take what follows from it in each."""
        with self._processes.first_goes_ahead():
            is_measured = self._run.record().pace is not None or is_saved(self._run.tokenizer)
            if self._processes.is_first and not is_measured:
                self._log_phase("measuring", "Measuring how fast this machine trains.")
                choose_by_speed(self._settings, self._run)
            self._record = self._run.record()
            self._effective = self._record.effective

    def _compare_held_out(self, *, is_new: bool) -> None:
        """Store the lines of the test split, and count the look at test texts that the validation text tells of.

        Raises TEST_LOCKED for the validation text of a new run that tells of a locked split.
        """
        store_test_lines(self._effective, self._settings)
        if is_new and self._effective.validation_corpus is not None:
            path = CorpusStore(self._settings).find_exact(self._effective.validation_corpus)
            measured = [(self._record.run_id, self._effective)]
            self._looks.read_text(measured, lines_of_corpus(path), "training", self._record.owner)

    def _before_test(self, corpus: TokenizedCorpus) -> None:
        """Count the look at the test split, if the run reads it."""
        self._log_phase("evaluating", "Evaluating the model.")
        if "test" in corpus.ids:
            self._looks.record(self._effective.test_id, [self._record.run_id], "training", self._record.owner)

    def _evaluate(self, result: TrainResult, parts: Parts, counts: SplitCounts | None) -> tuple[Baselines, EvalMetrics]:
        """Save the best weights; evaluate them on the test split, or on validation if the run has no test split.

        Return the baselines of the splits, and the evaluation.
        """
        effective, run_id = self._effective, self._record.run_id
        save_model(self._run.path, parts.model, parts.model.built_from)
        self._looks.add_trained(effective, run_id)
        split: EvalSplit = "test" if "test" in parts.corpus.ids else "validation"
        model, tokenizer, corpus, compute, _, _ = parts
        measured = measure(model, tokenizer, corpus, split, effective, compute, run_id=run_id, evaluation=result.test)
        best = result.state.history.best_loss_nats
        baselines, metrics = measure_baselines(counts, corpus, effective, measured.metrics, best)
        store_evaluation(self._run, measured._replace(metrics=metrics))
        self._log_evaluation(split, split, metrics.loss)
        log.info("evaluated", split=split, step=result.state.step, loss=metrics.loss, perplexity=metrics.perplexity)
        return baselines, metrics

    def _log_evaluation(self, key: str, split: EvalSplit, loss: float) -> None:
        stamped = self._stamp(f"evaluated:{key}")
        self._events.append(EvalCompleted(**stamped, split=split, loss=loss, perplexity=perplexity(loss)))

    def _log_result(self, metrics: RunMetrics, result: TrainResult, baseline: Baseline | None) -> None:
        weights = self._run.path / WEIGHTS_FILE
        if baseline is not None:
            log.info("counted", order=baseline.order, loss=baseline.ngram_loss)
            for warning in baseline.warnings():
                log.warning("worse_than_counting", reason=warning)
        self._events.append(
            MetricsCompleted(
                **self._stamp("measured:0"),
                test_loss=metrics.test,
                test_perplexity=metrics.test_perplexity,
                bits_per_char=metrics.bits_per_char,
                train_loss=metrics.train,
                train_bits_per_char=metrics.train_bits_per_char,
                auc=metrics.auc,
                early_stopped=result.early_stopped,
                best_epoch=result.state.history.best_epoch,
                baseline=baseline,
                artifact=ArtifactRef(id=self._record.run_id, bytes=weights.stat().st_size, sha256=sha256_of(weights)),
            )
        )

    def _artifact_files(self) -> Iterator[Path]:
        for pattern in _ARTIFACT_FILES:
            yield from self._run.path.glob(pattern)

    def _fail(self, error: AppError) -> None:
        finish_run(self._run, self._events, manifest_of(self._record, "failed", error=RunError.of(error)))

    def _stop_reason(self) -> StopReason | None:
        self._heartbeat.beat(ALIVE)
        if self._run.cancel_requested():
            return "cancel"
        return "pause" if self._pause.is_set() or self._run.pause_requested() else None

    def _log_phase(self, phase: Phase, message: str) -> None:
        stamped = self._stamp(f"{phase}:{self._number}")
        self._events.append(JobProgress(**stamped, progress=0.0, message=message, phase=phase))

    def _log_config(self, parts: Parts, counts: SplitCounts | None) -> None:
        model, tokenizer, corpus, compute, _, _ = parts
        effective = self._effective
        steps = epochs = 1
        if not isinstance(model, NgramModel):
            rows = len(corpus.rows("train", effective.max_seq_len))
            steps = total_steps(rows, effective, compute)
            epochs = -(-steps // steps_per_epoch(rows, effective, compute))
        config = MetricsConfig(
            **self._stamp(f"config:{self._number}"),
            model_family=effective.model_family,
            model_size=effective.model_size,
            total_epochs=epochs,
            total_steps=steps,
            batch_size=compute.batch_size,
            learning_rate=effective.learning_rate,
            params=model.parameter_count(),
            vocab_size=tokenizer.vocab_size,
            unknown_char_share=largest_unknown_char_share(corpus.sizes.values()),
            device=str(compute.device),
            precision=compute.precision,
            threads=compute.threads,
            tokenizer_id=tokenizer.manifest.tokenizer_id,
            counted_val_loss=counted_validation_loss(counts, corpus, effective),
            leaks=corpus.leaks,
            notes=self._notes(corpus),
        )
        self._events.append(config)
        for warning in leak_warnings(effective, corpus.leaks):
            log.warning("leak", reason=warning)
        for note in config.notes:
            log.info("corpus_note", reason=note)
        facts: dict[str, object] = config.model_dump(include={"model_family", "tokenizer_id", "vocab_size", "params"})
        log.info("model_built", **facts)

    def _notes(self, corpus: TokenizedCorpus) -> tuple[str, ...]:
        """Return the notes on the files of the corpus, and on its lines."""
        return distinct((*self._record.notes, *corpus.notes))

    def _log_progress(self, read: Callable[[], Progress]) -> None:
        """Log progress at each validation, else every second at first and ever more rarely later."""
        self._heartbeat.beat(STEP)
        at = monotonic()
        interval = min(max(_MIN_PROGRESS_SECONDS, (at - self._begin) / 300), _MAX_PROGRESS_SECONDS)
        if self._validated or at - self._progress_at >= interval:
            seconds, before = at - self._progress_at, self._progress_cpu
            self._validated, self._progress_at, self._progress_cpu = False, at, process_time()
            cores = round((self._progress_cpu - before) / seconds, 2) if seconds else None
            progress = read()
            fields: dict[str, object] = progress.model_dump()
            fields |= self._stamp(f"progress:{progress.step}")
            fields |= {"cpu_cores": cores, "memory_bytes": memory_held_bytes() or None}
            self._events.append(MetricsProgress.model_validate(fields))

    def _before_saving(self) -> None:
        self._heartbeat.beat(PHASE)
        self._events.check_only_writer()

    def _log_checkpoint(self, saved: SavedCheckpoint) -> None:
        step, loss, is_best = saved
        stamped = self._stamp(f"checkpoint:{step}:{loss}")
        self._events.append(CheckpointSaved(**stamped, step=step, val_loss=loss, is_best=is_best))

    def _add_samples(self, parts: Parts, prompts: Sequence[str], step: int) -> None:
        self._heartbeat.beat(PHASE)
        effective, run_id = self._effective, self._record.run_id
        samples = draw_samples(parts.model, parts.tokenizer, prompts, effective.seed, run_id)
        lines = (TrainingSample(step=step, sample=sample).model_dump_json() + "\n" for sample in samples)
        with self._run.training_samples.open("ab") as file:
            file.writelines(line.encode() for line in lines)

    def _add_row(self, curve: BinaryIO, row: CurveRow) -> None:
        curve.write(row.model_dump_json(exclude_none=True).encode() + b"\n")
        curve.flush()
        self._validated = row.val_loss is not None
        log.info("training", step=row.step, epoch=row.epoch, loss=row.train_loss)
        if row.val_loss is not None:
            log.info("evaluated", split="validation", step=row.step, epoch=row.epoch, loss=row.val_loss)
            if row.step == 0:
                self._log_evaluation("start", "validation", row.val_loss)
        if row.epoch_train_loss is not None:
            log.info("epoch_ended", step=row.step, epoch=row.epoch, loss=row.epoch_train_loss)

    def _stamp(self, key: str) -> Stamp:
        return stamp(self._record.run_id, self._record.user_id, key)


def _opened_at(path: Path, rows: int) -> BinaryIO:
    """Open a file for appending lines, after those that the checkpoint knows of; later lines are cut off."""
    file = BufferedRandom(open_regular(path, "a+b"))
    file.seek(0)
    for _ in range(rows):
        file.readline()
    file.truncate(file.tell())
    return file


def is_unidirectional(config: ModelConfig) -> bool:
    return "causal_lm" in config.objectives and not (isinstance(config, RnnConfig) and config.bidirectional)
