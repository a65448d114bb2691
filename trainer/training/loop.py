"""The training loop. The next step depends only on the model, the optimizer, the random generators and a TrainingState;
a checkpoint holds all of them, so on a CPU a resumed training gives the same numbers, bit for bit.
"""

import traceback
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Literal, NamedTuple

import structlog
import torch
from torch import Tensor

from trainer.artifacts.checkpoint_files import TrainingState
from trainer.config.checkpoint_schedule import TrainingSize, scheduled_steps
from trainer.contracts.errors import AppError, ErrorCode, transient_code
from trainer.contracts.events import Progress
from trainer.contracts.runs import EffectiveRequest
from trainer.models.base import LanguageModel
from trainer.training.batches import BatchReader, masking
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.dataset import TokenizedCorpus
from trainer.training.device import Compute, gpu_memory_bytes, is_out_of_memory, memory_advice
from trainer.training.evaluation import Evaluation, evaluate
from trainer.training.optimizer import Optimizer
from trainer.training.processes import ONE_PROCESS, LossSum, Processes
from trainer.training.progress import CurveRow, Snapshot, TrainingProgress

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

StopReason = Literal["cancel", "pause"]
_STOP_REASONS: tuple[StopReason | None, ...] = (None, "cancel", "pause")

_NO_CHECKPOINT_AFTER = (AppError, OSError, RuntimeError, ValueError, MemoryError)
"""Errors while saving after a fault: the state is invalid, or no checkpoint can be written."""


class SavedCheckpoint(NamedTuple):
    step: int
    val_loss: float | None
    """Last validation loss in nats per predicted token, if there was one."""
    is_best: bool


class TrainResult(NamedTuple):
    """Result of a training; `test` evaluates the best weights, if the training ended and has a test split."""

    stopped: StopReason | None
    early_stopped: bool
    state: TrainingState
    test: Evaluation | None


class TrainingCallbacks(NamedTuple):
    """Callbacks of the training loop; `on_saving` comes before a checkpoint is written, which can take long.

    `on_step` receives a function, because reading the numbers can cost more than a step.
    """

    on_row: Callable[[CurveRow], None] = lambda row: None
    on_step: Callable[[Callable[[], Progress]], None] = lambda numbers: None
    on_checkpoint: Callable[[SavedCheckpoint], None] = lambda saved: None
    should_stop: Callable[[], StopReason | None] = lambda: None
    on_sample: Callable[[int], None] = lambda step: None
    on_saving: Callable[[], None] = lambda: None
    on_test: Callable[[], None] = lambda: None


def train(
    model: LanguageModel,
    corpus: TokenizedCorpus,
    effective: EffectiveRequest,
    compute: Compute,
    store: CheckpointStore,
    *,
    resume: Checkpoint | None = None,
    callbacks: TrainingCallbacks | None = None,
    processes: Processes = ONE_PROCESS,
    seconds_before: float = 0.0,
) -> TrainResult:
    """Train a model, load the weights with the best validation loss into it, and evaluate them on the test split.

    A step reads `gradient_accumulation` batches of token ids (B, T) and minimizes the mean loss over all predicted
    tokens of their logits (B, T, V). Losses are in nats per predicted token, times in seconds.

    A warm start is validated before its first step; the parent's weights are the best until a validation is better. If
    `should_stop` returns a reason, the loop saves a checkpoint and leaves the current weights in the model. If a step
    fails before it has moved the weights, the loop saves the state before that step.

    Of several processes only the first calls back and saves. If a step fails in one of them, nothing is saved.

    With `minutes`, the clock of the first process chooses how many steps of the epochs are taken. Of the time of
    a new training `seconds_before` have passed; a resumed one goes on with the plan of its checkpoint.

    Raises TRAINING_NAN_LOSS if a loss is not finite or has diverged, OUT_OF_MEMORY, INSUFFICIENT_STORAGE if a
    checkpoint does not fit on the disk, and CHECKPOINT_CORRUPT if `resume` belongs to another request.
    """
    callbacks = callbacks or TrainingCallbacks()
    training = _Training(model, corpus, effective, compute, store, resume, callbacks, processes, seconds_before)
    try:
        training.start()
        training.run()
        test = training.test()
    except Stopped as stop:
        training.save()
        return TrainResult(stop.reason, False, training.progress.state, None)
    except AppError:
        raise
    except Exception as error:
        log.warning("training_failed", step=training.progress.state.step, error=type(error).__name__)
        if transient_code(error) is None:
            traceback.clear_frames(error.__traceback__)  # frees the memory of the failed step, which saving needs
            training.save_after_fault()
        if is_out_of_memory(error):
            raise AppError(ErrorCode.OUT_OF_MEMORY, memory_advice(effective, compute)) from error
        raise
    finally:
        training.reader.close()
    return TrainResult(None, training.progress.stopped_early, training.progress.state, test)


def steps_per_epoch(rows: int, effective: EffectiveRequest, compute: Compute) -> int:
    return -(-rows // (compute.batch_size * effective.gradient_accumulation))


def total_steps(rows: int, effective: EffectiveRequest, compute: Compute) -> int:
    """Return the number of steps of a training without early stopping: all epochs, at most `max_steps`.

    One that has `minutes` takes no more.
    """
    steps = steps_per_epoch(rows, effective, compute) * effective.num_epochs
    return min(steps, effective.max_steps or steps)


class Stopped(Exception):
    """Raised within a training that is to stop."""

    def __init__(self, reason: StopReason) -> None:
        self.reason = reason


class _Training:
    """One training: the loop, and the checkpoints that it saves."""

    def __init__(
        self,
        model: LanguageModel,
        corpus: TokenizedCorpus,
        effective: EffectiveRequest,
        compute: Compute,
        store: CheckpointStore,
        resume: Checkpoint | None,
        callbacks: TrainingCallbacks,
        processes: Processes,
        seconds_before: float,
    ) -> None:
        self._model, self._processes = model.train(), processes
        self._effective, self._compute, self._store, self._callbacks = effective, compute, store, callbacks
        model.input_embedding().weight.requires_grad_(not effective.freeze_embeddings)
        if effective.compute.gradient_checkpointing:
            model.checkpoint_gradients()
        rows = corpus.rows("train", effective.max_seq_len, masking(effective, model.vocabulary, effective.seed))
        mask = masking(effective, model.vocabulary, effective.split_seed)
        self._validation = corpus.documents("validation", mask)
        self._test = corpus.documents("test", mask) if "test" in corpus.ids else None
        self.reader = BatchReader(
            rows,
            batch_size=compute.batch_size,
            batches_per_step=effective.gradient_accumulation,
            seed=effective.seed,
            workers=compute.data_num_workers,
            pin=compute.data_pin_memory,
            share=(processes.rank, processes.count),
        )
        steps = total_steps(len(rows), effective, compute)
        size = TrainingSize(
            total_steps=steps,
            rows_per_step=compute.batch_size * effective.gradient_accumulation,
            rows=len(rows),
            words=corpus.words["train"],
            tokens=corpus.sizes["train"].tokens,
        )
        self._scheduled = scheduled_steps(effective.checkpoint_schedule, size)
        state = None if resume is None else resume.state
        seconds = None
        if effective.minutes is not None:
            seconds = 60 * effective.minutes - processes.first(seconds_before)
        self.progress = TrainingProgress(model, corpus, effective, compute, size=size, state=state, seconds=seconds)
        if resume is not None:
            model.load_state_dict(resume.weights)
        self._weights = processes.weights(LossSum(model, compute), effective.strategy)
        self._optimizer = Optimizer(self._weights.model, effective, compute, steps, self._weights)
        if resume is not None:
            self._optimizer.load(resume.optimizer_state)
        if not processes.is_first:
            torch.manual_seed(effective.seed + processes.rank)  # other dropout for other rows
        self._saved = self.progress.state
        self._snapshot: Snapshot | None = None
        """The state to return to after a fault; None while the weights and the state do not fit together."""

    def start(self) -> None:
        """Save the initial weights if step 0 is scheduled, and validate those of a warm start, once."""
        progress = self.progress
        if progress.state.step == 0 and 0 in self._scheduled:
            self._save_scheduled()
            self._callbacks.on_checkpoint(SavedCheckpoint(0, None, is_best=False))
        if self._effective.init_from_run_id is not None and progress.state.initial_loss_nats is None:
            self._validate()
            self._callbacks.on_row(progress.first_row())
            self.save()

    def run(self) -> None:
        """Take steps until the training is finished."""
        progress, optimizer, processes = self.progress, self._optimizer, self._processes
        while True:
            if progress.state.processed_step < progress.state.step:
                self._after_step()
                self._callbacks.on_step(progress.numbers)
            if progress.is_finished:
                break
            self.check_stop()

            started = perf_counter()
            self._snapshot = progress.snapshot()
            batches = self.reader.read(len(progress.state.epochs), progress.state.position)
            rows = self.reader.rows_of_step(progress.state.position)
            tokens = processes.total(sum(batch.tokens for batch in batches))
            smallest = min(min(self._model.product_rows(each.inputs, each.lengths), each.tokens) for each in batches)
            with self._model.computing("training", smallest, tokens):
                for number, batch in enumerate(batches, 1):
                    loss_sum = self._weights.loss_sum(batch.to(self._compute.device), is_last=number == len(batches))
                    mean = loss_sum / (max(tokens, 1) / processes.count)  # processes exchange mean gradients
                    optimizer.backward(mean)
                    progress.add_loss(processes.sum(loss_sum))
                progress.set_gradient_norm(optimizer.clip_gradients())
                self._snapshot = None  # the weights move
                optimizer.step(progress.state.step, progress.position(progress.state.step))
            elapsed = processes.first(progress.elapsed())  # for `max_seconds`, which ends all processes together
            seconds = perf_counter() - started
            if self._effective.minutes is not None:  # all processes take the same plan
                seconds = processes.first(seconds)
            progress.add_step(rows, tokens, seconds, elapsed)

    def _after_step(self) -> None:
        """Do what is due after a step: validate, send a row of the loss curve, draw samples, save checkpoints."""
        progress, effective, state = self.progress, self._effective, self.progress.state
        epoch_ended = state.position == 0
        is_evaluated = epoch_ended or state.is_last_step or _is_multiple(state.step, effective.eval_every_steps)
        is_saved = state.is_last_step or state.step in self._scheduled
        is_saved |= _is_multiple(state.step, effective.checkpoint_every_steps)
        is_saved |= epoch_ended and effective.checkpoint_every_steps is None
        has_row = is_evaluated or _is_multiple(state.step, effective.log_every_steps)
        if is_evaluated or is_saved:
            progress.mark_pause()
        if has_row or is_saved:
            progress.check_loss()
        if is_evaluated:
            self._snapshot = progress.snapshot()
            self._validate()
            self._snapshot = None  # a second validation of this step would count twice
        if has_row:
            progress.set_gpu_memory(self._processes.each(gpu_memory_bytes(self._compute.device)))
            self._callbacks.on_row(progress.next_row())
        if _is_multiple(state.step, effective.sample_every_steps):
            with self._optimizer.averaged(), self._weights.gathered():
                self._callbacks.on_sample(state.step)
            self._model.train()
        if state.step in self._scheduled or (self._scheduled and progress.is_finished):
            self._save_scheduled()  # before the step counts as processed, so that a resumed training repeats it
        progress.mark_processed()
        if is_saved or progress.is_finished or progress.state.history.best_step == state.step:
            self.save()

    def _validate(self) -> None:
        with self._optimizer.averaged(), self._weights.gathered():
            found = evaluate(self._model, self._validation, self._compute, self.check_stop)
        margin_nats = found.margin_nats(is_drawn=self._effective.draws_lines("validation"))
        self.progress.add_validation(self._processes.first(found.loss_nats), margin_nats)

    def check_stop(self) -> None:
        """Stop all processes if the first one has a reason to."""
        reason = self._callbacks.should_stop()
        number = self._processes.first(_STOP_REASONS.index(reason))
        reason = _STOP_REASONS[int(number)]
        if reason is not None:
            raise Stopped(reason)

    def save(self) -> None:
        """Save a checkpoint of the current state, unless it is saved already."""
        if self.progress.state == self._saved:
            return
        self._callbacks.on_saving()
        state = self.progress.durable_state()
        optimizer_state = self._optimizer.state()
        with self._optimizer.averaged(), self._weights.gathered():
            if self._processes.is_first:
                self._store.save(Checkpoint(state, self._state_dict(), optimizer_state))
        self._saved = state
        is_best = state.history.best_step == state.step
        self._callbacks.on_checkpoint(SavedCheckpoint(state.step, state.validation_loss_nats, is_best))

    def _save_scheduled(self) -> None:
        self._callbacks.on_saving()
        state = self.progress.durable_state()
        with self._optimizer.averaged(), self._weights.gathered():
            if self._processes.is_first:
                self._store.save_scheduled(state, self._state_dict())

    def save_after_fault(self) -> None:
        """Return to the snapshot, if there is one, and save it if its numbers are valid."""
        if self._snapshot is not None and self._processes.count == 1:
            with suppress(*_NO_CHECKPOINT_AFTER):
                self._optimizer.clear_gradients()
                self.progress.restore(self._snapshot)
                self.save()

    def test(self) -> Evaluation | None:
        """Load the best weights and evaluate them on the test split, if there is one."""
        best_step = self.progress.state.history.best_step
        self._optimizer.keep_average()
        with self._weights.gathered():
            if best_step is not None and best_step != self.progress.state.step:
                self._model.load_state_dict(self._store.weights(best_step))
            self._callbacks.on_test()
            return None if self._test is None else evaluate(self._model, self._test, self._compute, self.check_stop)

    def _state_dict(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = self._model.state_dict()
        return weights


def _is_multiple(step: int, interval: int | None) -> bool:
    return interval is not None and step % interval == 0
