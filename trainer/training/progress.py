"""Progress of a training: its state, the rows of its loss curve, and the numbers that it reports."""

import math
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.artifacts.checkpoint_files import CurveState, EpochSummary, TextSeen, TrainingState
from trainer.config.checkpoint_schedule import TrainingSize
from trainer.config.presets import request_hash
from trainer.contracts.base import Frozen, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import Progress
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.units import loss_number, perplexity
from trainer.data.corpus import Split
from trainer.models.base import LanguageModel
from trainer.training.dataset import TokenizedCorpus
from trainer.training.device import Compute, RandomState, random_state, restore_random_state
from trainer.training.optimizer import learning_rate
from trainer.training.time_plan import StepClock, TimedWork

_MAX_LOSS_RATIO, _DIVERGED_ROWS = 5.0, 3
"""A loss that is so many times that of guessing in so many rows, one after the other, will not fall again."""
"""A mean loss above this multiple of the initial loss counts as divergence."""


class CurveRow(Frozen):
    """A line of `loss_curve.jsonl`: losses in nats per predicted token. A warm start has a row for step 0."""

    step: int
    epoch: int
    """From 1."""
    train_loss: float | None = None
    """Mean since the previous row."""
    lr: float
    grad_norm: float | None = None
    """Gradient norm of the last step, before clipping."""
    tokens: int
    """Predicted tokens since the training started."""
    elapsed_seconds: float
    val_loss: float | None = None
    epoch_train_loss: float | None = None
    """Mean of the epoch, in the row that ends an epoch."""


class Snapshot(NamedTuple):
    """Random generators and device sums before a step or a validation; with them, a failed one can be undone."""

    random: RandomState
    epoch_loss: Tensor
    row_loss: Tensor
    gradient_norm: Tensor


class TrainingProgress:
    """The TrainingState of a training, and the sums of it that are on the device.

    The sums are float64 scalars in nats. They are added to in the order of the batches, whether or not they are read,
    so reading them changes no result. Each addition creates a new tensor, so that a Snapshot keeps its values.
    """

    def __init__(
        self,
        model: LanguageModel,
        corpus: TokenizedCorpus,
        effective: EffectiveRequest,
        compute: Compute,
        *,
        size: TrainingSize,
        state: TrainingState | None,
        seconds: float | None = None,
    ) -> None:
        """Start at a state, or at step 0 if it is None; `seconds` is the time of a new training that has `minutes`.

        Raises CHECKPOINT_CORRUPT if the state belongs to another request.
        """
        self._model, self._sizes, self._effective = model, corpus.sizes, effective
        self._size = size
        start = TrainingState(request_hash=request_hash(effective))
        self.state = state or start
        if self.state.request_hash != start.request_hash:
            raise AppError(ErrorCode.CHECKPOINT_CORRUPT, "The checkpoint belongs to another request.")
        self.state = changed(self.state, rows_per_step=size.rows_per_step, max_seq_len=effective.max_seq_len)
        self._clock: StepClock | None = None
        if seconds is not None:
            self._clock = StepClock(_timed_work(corpus, effective, size), self.state.elapsed_seconds)
            self.state = changed(self.state, plan=self.state.plan or self._clock.first_plan(seconds))
        device = compute.device
        self._epoch_loss = torch.tensor(self.state.epoch_loss_nats, dtype=torch.float64, device=device)
        self._row_loss = torch.tensor(self.state.row_loss_nats, dtype=torch.float64, device=device)
        self._gradient_norm = torch.tensor(self.state.gradient_norm, device=device)
        self._origin = perf_counter() - self.state.elapsed_seconds
        self._row_start = self.state
        self._validated_step = -1
        self._tokens_per_second = 0.0
        self._gpu_memory_bytes: tuple[int, ...] | None = None

    @property
    def total_steps(self) -> int:
        """The steps of the training without early stopping, by its plan if it has `minutes`."""
        return self._size.total_steps if self.state.plan is None else self.state.plan.total_steps

    def position(self, step: int) -> float:
        """Return the position in the schedule of the learning rate after `step` steps."""
        return step if self.state.plan is None else self.state.plan.position(step)

    @property
    def stopped_early(self) -> bool:
        return self.state.history.stops(self._effective.early_stopping)

    @property
    def is_finished(self) -> bool:
        return self.state.is_last_step or self.stopped_early

    def add_loss(self, loss_sum: Tensor) -> None:
        """Add the summed loss of a batch, a scalar in nats."""
        self._epoch_loss = self._epoch_loss + loss_sum.detach()
        self._row_loss = self._row_loss + loss_sum.detach()

    def set_gradient_norm(self, norm: Tensor) -> None:
        """Store the gradient norm of a step, a scalar; if it is not finite, the scaler or the next loss shows it."""
        self._gradient_norm = torch.where(norm.isfinite(), norm, self._gradient_norm)

    def set_gpu_memory(self, most_bytes: tuple[int, ...]) -> None:
        """Store the highest use of memory so far on each GPU; 0 for each process on the CPU."""
        self._gpu_memory_bytes = most_bytes if any(most_bytes) else None

    def elapsed(self) -> float:
        """Return the seconds since the training started, without those between its attempts."""
        return perf_counter() - self._origin

    def add_step(self, rows: int, tokens: int, seconds: float, elapsed: float) -> None:
        """Count a step that took some seconds; at the end of an epoch, store its mean loss and clear its sums."""
        state = self.state
        epochs, position, epoch_tokens = state.epochs, state.position + rows, state.epoch_tokens + tokens
        epoch_start = state.epoch_start_seconds
        if position == self._size.rows:
            mean = self._check_finite(float(self._epoch_loss)) / epoch_tokens
            epochs = (*epochs, EpochSummary(train_loss_nats=mean, seconds=elapsed - epoch_start))
            position, epoch_tokens, epoch_start = 0, 0, elapsed
            self._epoch_loss.zero_()
        plan = state.plan
        if plan is not None and self._clock is not None:
            plan = self._clock.corrected(plan, state.step + 1, seconds, elapsed)
        total = self._size.total_steps if plan is None else plan.total_steps
        out_of_time = self._effective.max_seconds is not None and elapsed >= self._effective.max_seconds
        self.state = changed(
            state,
            step=state.step + 1,
            position=position,
            epochs=epochs,
            epoch_tokens=epoch_tokens,
            row_tokens=state.row_tokens + tokens,
            tokens_seen=state.tokens_seen + tokens,
            seen=self._seen(len(epochs) * self._size.rows + position, rows),
            tokens_per_step=tokens,
            is_last_step=state.step + 1 == total or out_of_time,
            plan=plan,
            elapsed_seconds=elapsed,
            epoch_start_seconds=epoch_start,
            train_seconds=state.train_seconds + seconds,
        )

    def _seen(self, rows_read: int, rows_in_step: int) -> TextSeen:
        """Return the text read with rows, counted over all epochs; the last step has read `rows_in_step` of them."""
        words, tokens = self._size.words_seen(rows_read), self._size.tokens_seen(rows_read)
        before = rows_read - rows_in_step
        return TextSeen(
            words=words,
            tokens=tokens,
            words_in_step=words - self._size.words_seen(before),
            tokens_in_step=tokens - self._size.tokens_seen(before),
        )

    def add_validation(self, loss_nats: float, margin_nats: float | None) -> None:
        """Store the validation loss of the current weights, and half the width of its 95 % interval.

        Raises TRAINING_NAN_LOSS if the loss is not finite.
        """
        self._check_finite(loss_nats)
        step, rule = self.state.step, self._effective.early_stopping
        history = self.state.history.after(loss_nats, margin_nats, step=step, epoch=self.state.epoch, rule=rule)
        self.state = changed(self.state, validation_loss_nats=loss_nats, history=history)
        self._validated_step = step

    def first_row(self) -> CurveRow:
        """Return the row of step 0: the validation loss of a warm start, which is its initial loss too."""
        loss, curve = self.state.validation_loss_nats, changed(self.state.curve, rows=self.state.curve.rows + 1)
        self.state = changed(self.state, initial_loss_nats=loss, curve=curve)
        elapsed = self.state.elapsed_seconds
        return CurveRow(step=0, epoch=0, lr=self._learning_rate(0), tokens=0, elapsed_seconds=elapsed, val_loss=loss)

    def next_row(self) -> CurveRow:
        """Return the row of the current step and start the next. Raises TRAINING_NAN_LOSS if the loss has diverged."""
        state = self.state
        loss = float(self._row_loss) / state.row_tokens
        diverged_rows = self._diverged_rows(loss)
        area, before = state.curve.area, state.curve.loss_nats
        if before is not None:  # the trapezoid between two rows
            area = (area or 0.0) + (state.step - state.curve.step) * (loss + before) / 2
        self._tokens_per_second = self._speed()
        self._row_loss.zero_()
        rows = state.curve.rows + 1
        curve = CurveState(rows=rows, step=state.step, loss_nats=loss, area=area, diverged_rows=diverged_rows)
        self.state = self._row_start = changed(state, row_tokens=0, curve=curve)
        return CurveRow(
            step=state.step,
            epoch=state.epoch,
            train_loss=loss,
            lr=self._learning_rate(state.step - 1),
            grad_norm=float(self._gradient_norm),
            tokens=state.tokens_seen,
            elapsed_seconds=state.elapsed_seconds,
            val_loss=self._new_validation_loss(),
            epoch_train_loss=state.epochs[-1].train_loss_nats if state.position == 0 else None,
        )

    def mark_pause(self) -> None:
        """Tell the clock of a training that has `minutes` that this step is followed by a validation or checkpoint."""
        if self._clock is not None:
            self._clock.mark_pause()

    def mark_processed(self) -> None:
        """Record that everything due after the current step is done."""
        self.state = changed(self.state, processed_step=self.state.step)

    def numbers(self) -> Progress:
        """Return the numbers after the last step; reading them from the device can cost more than a step."""
        state, total = self.state, self.total_steps
        loss = float(self._row_loss) / state.row_tokens if state.row_tokens else state.curve.loss_nats or 0.0
        validation_loss, best_loss = self._new_validation_loss(), state.history.best_loss_nats
        train, speed = self._sizes["train"], self._speed()
        masked_share = 1.0 if self._model.objective == "causal_lm" else self._effective.mlm_probability or 1.0
        return Progress(
            epoch=state.epoch,
            total_epochs=self._size._replace(total_steps=total).epochs,
            step=state.step,
            total_steps=total,
            progress=100.0 if self.is_finished else 100 * state.step / total,
            train_loss=loss,
            train_perplexity=perplexity(loss),
            learning_rate=self._learning_rate(state.step - 1),
            grad_norm=float(self._gradient_norm),
            tokens_per_second=speed,
            chars_per_second=speed * train.chars / train.tokens / masked_share,
            eta_seconds=0.0 if self.is_finished else state.elapsed_seconds / state.step * (total - state.step),
            val_loss=validation_loss,
            val_perplexity=None if validation_loss is None else perplexity(validation_loss),
            best_val_loss=best_loss,
            best_val_margin=state.history.best_margin_nats,
            train_bits_per_char=self._bits_per_char("train", loss),
            val_bits_per_char=self._bits_per_char("validation", validation_loss),
            best_val_bits_per_char=self._bits_per_char("validation", best_loss),
            best_epoch=state.history.best_epoch,
            evals_without_gain=state.history.evaluations_without_fall,
            gpu_memory_bytes=self._gpu_memory_bytes,
            tokens=state.seen.tokens,
            words=state.seen.words,
        )

    def durable_state(self) -> TrainingState:
        """Return the state with the sums of the device, for a checkpoint."""
        self.state = changed(
            self.state,
            epoch_loss_nats=float(self._epoch_loss),
            row_loss_nats=float(self._row_loss),
            gradient_norm=float(self._gradient_norm),
        )
        return self.state

    def snapshot(self) -> Snapshot:
        return Snapshot(random_state(), self._epoch_loss, self._row_loss, self._gradient_norm)

    def restore(self, snapshot: Snapshot) -> None:
        """Restore a snapshot. Raises TRAINING_NAN_LOSS if a weight or loss is not finite, or a loss is far off."""
        random, self._epoch_loss, self._row_loss, self._gradient_norm = snapshot
        restore_random_state(random)
        self._check_finite(float(self._epoch_loss + self._row_loss))
        loss_nats = float(self._row_loss) / max(1, self.state.row_tokens)
        if self._is_far_off(loss_nats):
            raise self._divergence(loss_nats)
        for weight in self._model.parameters():
            self._check_finite(float(weight.detach().abs().max()))

    def check_loss(self) -> None:
        """Raise TRAINING_NAN_LOSS if the training loss since the last row is not finite."""
        self._check_finite(float(self._row_loss))

    def _new_validation_loss(self) -> float | None:
        return self.state.validation_loss_nats if self._validated_step == self.state.step else None

    def _bits_per_char(self, split: Split, loss_nats: float | None) -> float | None:
        return None if loss_nats is None else self._sizes[split].bits_per_char(loss_nats, self._model.objective)

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self.position(step), self._size.total_steps, self._effective)

    def _speed(self) -> float:
        """Return the predicted tokens per second since the last row, without validation and saving."""
        tokens = self.state.tokens_seen - self._row_start.tokens_seen
        seconds = self.state.train_seconds - self._row_start.train_seconds
        return tokens / seconds if tokens else self._tokens_per_second

    def _diverged_rows(self, loss_nats: float) -> int:
        """Return how many of the last rows, up to a new one with this mean loss, are far above guessing.

        Raises TRAINING_NAN_LOSS if these are so many that the training has diverged.
        """
        if not self._is_far_off(loss_nats):
            return 0
        rows = self.state.curve.diverged_rows + 1
        if rows == _DIVERGED_ROWS:
            raise self._divergence(loss_nats)
        return rows

    def _is_far_off(self, loss_nats: float) -> bool:
        return loss_nats > _MAX_LOSS_RATIO * self._guess_nats()

    def _divergence(self, loss_nats: float) -> AppError:
        loss, guess = (loss_number(nats, "bits") for nats in (loss_nats, self._guess_nats()))
        message = (
            f"The training diverged: at step {self.state.step} the loss is {loss} bits per token, and guessing has"
            f" {guess}. Use a smaller `learning_rate` or `gradient_clipping`."
        )
        return AppError(ErrorCode.TRAINING_NAN_LOSS, message)

    def _guess_nats(self) -> float:
        """Return the loss of equal probabilities, or that of a parent that is worse on this text."""
        return max(math.log(self._model.vocab_size), self.state.initial_loss_nats or 0.0)

    def _check_finite(self, value: float) -> float:
        if not math.isfinite(value):
            raise AppError(
                ErrorCode.TRAINING_NAN_LOSS,
                f"The loss is not finite at step {self.state.step}. Use a smaller `learning_rate`.",
            )
        return value


def _timed_work(corpus: TokenizedCorpus, effective: EffectiveRequest, size: TrainingSize) -> TimedWork:
    tokens = {split: of_split.tokens for split, of_split in corpus.sizes.items()}
    pauses = (size.steps_per_epoch, effective.eval_every_steps, effective.checkpoint_every_steps)
    return TimedWork(
        most_steps=size.total_steps,
        steps_between_pauses=min(steps for steps in pauses if steps is not None),
        validation_steps=size.steps_per_epoch * tokens["validation"] / tokens["train"],
        test_share=tokens.get("test", 0) / tokens["validation"],
    )
