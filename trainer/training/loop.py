"""The training loop: one function that a reader can hold in mind, and the pure functions that it uses.

All that the next step depends on is in the model, the optimizer, torch's generator and one TrainingState, so a training
that is resumed from a checkpoint goes on bit for bit as if it had never stopped (on the CPU).
"""

import inspect
import math
import traceback
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Literal, NamedTuple, assert_never

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainer.artifacts.checkpoint_files import CurveState, EpochSummary, TrainingState
from trainer.config.presets import request_hash
from trainer.contracts.base import Frozen
from trainer.contracts.checkpoint_schedule import scheduled_steps
from trainer.contracts.errors import AppError, ErrorCode, transient_code
from trainer.contracts.events import Progress
from trainer.contracts.inference import perplexity
from trainer.contracts.runs import DecayFree, EffectiveRequest, OptimizerConfig
from trainer.data.corpus import Split
from trainer.models.base import LanguageModel
from trainer.training.batches import Batch, BatchReader, epoch_order, masking
from trainer.training.checkpoint import Checkpoint, CheckpointStore, OptimizerState
from trainer.training.dataset import TokenizedCorpus
from trainer.training.device import Compute, RandomState, autocast, is_out_of_memory, random_state, restore_random_state
from trainer.training.evaluation import Evaluation, evaluate

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

StopReason = Literal["cancel", "pause"]

_DIVERGED = 5.0
"""Times the loss of a guess."""
_NOT_SAVED = (AppError, OSError, RuntimeError, ValueError, MemoryError)
"""Raised where a state is not worth a checkpoint, and where none can be written any more."""


class CurveRow(Frozen):
    """A line of `loss_curve.jsonl`: the mean loss since the line before, in nats per predicted token.

    A warm start has a line for step 0 too: what its parent's weights do on its validation split.
    """

    step: int
    epoch: int
    """From 1."""
    train_loss: float | None = None
    lr: float
    grad_norm: float | None = None
    """Of the last step, before clipping."""
    tokens: int
    """Predicted since the training began."""
    elapsed_seconds: float
    val_loss: float | None = None
    epoch_train_loss: float | None = None
    """The mean of an epoch, where one has just ended."""


class SavedCheckpoint(NamedTuple):
    step: int
    val_loss: float | None
    is_best: bool


class TrainResult(NamedTuple):
    """What came of a training; `test` is what the best weights do, which the model holds then."""

    stopped: StopReason | None
    early_stopped: bool
    state: TrainingState
    test: Evaluation | None


class TrainingCallbacks(NamedTuple):
    """Whom a training tells of what; `on_step` gets a function, as reading the numbers may cost more than a step."""

    on_row: Callable[[CurveRow], None] = lambda row: None
    on_step: Callable[[Callable[[], Progress]], None] = lambda progress: None
    on_checkpoint: Callable[[SavedCheckpoint], None] = lambda saved: None
    should_stop: Callable[[], StopReason | None] = lambda: None
    on_sample: Callable[[int], None] = lambda step: None
    """Called every `sample_every_steps`, with the model as it is."""
    on_saving: Callable[[], None] = lambda: None
    """Called before a checkpoint is written, which may take long."""


def train(
    model: LanguageModel,
    corpus: TokenizedCorpus,
    effective: EffectiveRequest,
    compute: Compute,
    store: CheckpointStore,
    *,
    resume: Checkpoint | None = None,
    callbacks: TrainingCallbacks | None = None,
) -> TrainResult:
    """Train a model, keep the weights that did best on validation, and test those.

    A model with its parent's weights (a warm start) is validated before its first step; they stay the best until a
    later validation is better. A stop saves a checkpoint first and gives back the model as it is then; so does a fault,
    where the weights have not moved since the last whole state. Raises TRAINING_NAN_LOSS for a loss that is not finite
    or has grown beyond recovery, OUT_OF_MEMORY, and INSUFFICIENT_STORAGE where a checkpoint does not fit on the disk.
    """
    told = callbacks or TrainingCallbacks()

    def check_stop() -> None:
        reason = told.should_stop()
        if reason is not None:
            raise _Stopped(reason)

    training = _Training(model, corpus, effective, compute, store, resume)
    test: Evaluation | None = None
    try:
        training.begin(told, check_stop)
        training.run(told, check_stop)
        training.load_best()
        if "test" in corpus.ids:
            documents = corpus.documents("test", masking(effective, model.vocabulary))
            test = evaluate(model, documents, compute, check_stop)
    except _Stopped as stop:
        training.save(told)
        return TrainResult(stop.reason, False, training.state, None)
    except AppError:
        raise
    except Exception as error:
        log.warning("training broke off", step=training.state.step, error=type(error).__name__)
        if transient_code(error) is None:
            traceback.clear_frames(error.__traceback__)  # the memory of what has failed is needed to save
            training.save_after_fault(told)
        if is_out_of_memory(error):
            message = "There is not enough memory for this model: make `batch_size` or `max_seq_len` smaller."
            raise AppError(ErrorCode.OUT_OF_MEMORY, message) from error
        raise
    finally:
        training.close()
    return TrainResult(None, training.stopped_early, training.state, test)


def learning_rate(step: int, total_steps: int, effective: EffectiveRequest) -> float:
    """Return the rate of the step that comes after `step` others: a linear warm-up, then the schedule to its end."""
    if effective.warmup_ratio is not None:
        warmup = math.ceil(effective.warmup_ratio * total_steps)
    else:
        warmup = effective.warmup_steps or 0
    if step < warmup:
        return effective.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    match effective.lr_schedule:
        case "constant":
            return effective.learning_rate
        case "linear":
            share = 1.0 - done
        case "cosine":
            share = (1.0 + math.cos(math.pi * done)) / 2
        case unknown:
            assert_never(unknown)
    return effective.min_learning_rate + (effective.learning_rate - effective.min_learning_rate) * share


def steps_in_epoch(rows: int, effective: EffectiveRequest, compute: Compute) -> int:
    return -(-rows // (compute.batch_size * effective.gradient_accumulation))


class _Stopped(Exception):
    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class _Whole(NamedTuple):
    """What a step changes before it moves the weights, as it was before."""

    random: RandomState
    epoch_loss: Tensor
    row_loss: Tensor
    gradient_norm: Tensor


class _Training:
    """A training under way: a state, the tensors beside it, and what can be done with them."""

    def __init__(
        self,
        model: LanguageModel,
        corpus: TokenizedCorpus,
        effective: EffectiveRequest,
        compute: Compute,
        store: CheckpointStore,
        resume: Checkpoint | None,
    ) -> None:
        self._model = model.to(compute.device).train()
        model.input_embedding().weight.requires_grad_(not effective.freeze_embeddings)
        self._effective = effective
        self._compute = compute
        self._store = store
        if effective.compute.gradient_checkpointing:
            model.checkpoint_gradients()
        how = masking(effective, model.vocabulary)
        self._rows = corpus.rows("train", effective.max_seq_len, how)
        self._reader = BatchReader(self._rows, workers=compute.data_num_workers, pin=compute.data_pin_memory)
        self._validation = corpus.documents("validation", how)
        share = 1.0 if how is None else effective.mlm_probability or 1.0  # of the tokens, which are predicted
        self._sizes = corpus.sizes
        self._chars_per_token = corpus.sizes["train"].chars / corpus.sizes["train"].tokens / share
        steps = steps_in_epoch(len(self._rows), effective, compute) * effective.num_epochs
        self._total_steps = min(steps, effective.max_steps or steps)
        self._scheduled = scheduled_steps(
            effective.checkpoint_schedule,
            total_steps=self._total_steps,
            steps_per_epoch=steps // effective.num_epochs,
        )
        self._optimizer = _optimizer(model, effective)
        self._scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
        self.state = TrainingState(request_hash=request_hash(effective))
        if resume is not None:
            self._restore(resume)
        self._saved = self.state
        self._order = epoch_order(len(self._rows), effective.seed, len(self.state.epochs))
        # Sums stay on the device and are only ever added to, one step after another: read or not, they end up equal.
        # Each addition makes a new tensor: that from before a step is still there when the step fails.
        self._epoch_loss = torch.tensor(self.state.epoch_loss_nats, dtype=torch.float64, device=compute.device)
        self._row_loss = torch.tensor(self.state.row_loss_nats, dtype=torch.float64, device=compute.device)
        self._gradient_norm = torch.tensor(self.state.gradient_norm, device=compute.device)
        self._origin = perf_counter() - self.state.elapsed_seconds
        self._row_start = self.state
        self._validated_step = -1
        self._speed = 0.0
        self._whole: _Whole | None = None
        """How to come back to the last whole state; None where there is no way back to it."""

    @property
    def stopped_early(self) -> bool:
        return self.state.history.stops(self._effective.early_stopping)

    @property
    def _finished(self) -> bool:
        return self.state.is_last_step or self.stopped_early

    def run(self, told: TrainingCallbacks, check_stop: Callable[[], None]) -> None:
        """Take steps until none is left."""
        while True:
            if self.state.processed_step < self.state.step:
                self._settle(told, check_stop)
                told.on_step(self.progress)
            if self._finished:
                break
            check_stop()
            self._step()

    def _step(self) -> None:
        """Move the weights once, by the mean loss over all tokens of `gradient_accumulation` batches."""
        started = perf_counter()
        self._whole = self._as_whole()
        taken = self._rows_of_step(self.state.position)
        rows = sum(len(of_batch) for of_batch in taken)
        epoch = len(self.state.epochs) + 1
        batches = self._reader.read(taken, self._rows_of_step(self.state.position + rows), epoch)
        tokens = sum(batch.tokens for batch in batches)
        for batch in batches:
            self._backward(batch.to(self._compute.device), max(tokens, 1))
        self._scaler.unscale_(self._optimizer)
        limit = self._effective.gradient_clipping or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), limit)
        # one that is not finite is of a step that a scaler leaves out, or shows in the next loss
        self._gradient_norm = torch.where(norm.isfinite(), norm, self._gradient_norm)
        groups: list[dict[str, object]] = self._optimizer.param_groups
        for group in groups:
            group["lr"] = self._learning_rate(self.state.step)
        self._whole = None  # the weights move
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        self._advance(rows, tokens, perf_counter() - started)

    def begin(self, told: TrainingCallbacks, check_stop: Callable[[], None]) -> None:
        """Keep the first weights where they are scheduled; measure those of a warm start, once, as the best so far."""
        if self.state.step == 0 and 0 in self._scheduled:
            self._keep(told)
            told.on_checkpoint(SavedCheckpoint(0, None, is_best=False))
        if self._effective.init_from_run_id is None or self.state.initial_loss_nats is not None:
            return
        self._validate(check_stop)
        self._update(initial_loss_nats=self.state.validation_loss_nats)
        rows = self.state.curve.rows + 1
        curve: dict[str, object] = {"rows": rows}
        self._update(curve=self.state.curve.model_copy(update=curve))
        told.on_row(
            CurveRow(
                step=0,
                epoch=0,
                lr=self._learning_rate(0),
                tokens=0,
                elapsed_seconds=self.state.elapsed_seconds,
                val_loss=self.state.validation_loss_nats,
            )
        )
        self.save(told)

    def _settle(self, told: TrainingCallbacks, check_stop: Callable[[], None]) -> None:
        """Do what is due after a step: validate, tell the row of the loss curve, save."""
        state, effective = self.state, self._effective
        epoch_ended = state.position == 0
        evaluating = epoch_ended or state.is_last_step or _is_multiple(state.step, effective.eval_every_steps)
        saving = state.is_last_step or _is_multiple(state.step, effective.checkpoint_every_steps)
        saving = saving or state.step in self._scheduled
        if effective.checkpoint_every_steps is None:
            saving = saving or epoch_ended
        if evaluating or saving or _is_multiple(state.step, effective.log_every_steps):
            self._check_finite(float(self._row_loss))
        if evaluating:
            self._whole = self._as_whole()
            self._validate(check_stop)
            self._whole = None  # validated again, it would count twice
        if evaluating or _is_multiple(state.step, effective.log_every_steps):
            told.on_row(self._next_row(evaluating))
        if _is_multiple(state.step, effective.sample_every_steps):
            told.on_sample(state.step)
            self._model.train()
        if state.step in self._scheduled or (self._scheduled and self._finished):
            self._keep(told)  # before the step counts as settled: what goes on from there does not come back here
        self._update(processed_step=state.step)
        if saving or self._finished or self.state.history.best_step == state.step:
            self.save(told)

    def save(self, told: TrainingCallbacks) -> None:
        """Make the training durable as it is; does nothing where that is done already."""
        if self.state == self._saved:
            return
        told.on_saving()
        state = self._snapshot()
        optimizer: dict[str, object] = self._optimizer.state_dict()
        scaler: dict[str, object] = self._scaler.state_dict()
        rest = OptimizerState(optimizer=optimizer, scaler=scaler, random=random_state())
        weights: dict[str, Tensor] = self._model.state_dict()
        self._store.save(Checkpoint(state, weights, rest))
        self._saved = self.state
        validated = state.validation_loss_nats
        told.on_checkpoint(SavedCheckpoint(state.step, validated, state.history.best_step == state.step))

    def _keep(self, told: TrainingCallbacks) -> None:
        """Keep the weights as they are for good."""
        told.on_saving()
        weights: dict[str, Tensor] = self._model.state_dict()
        self._store.save_scheduled(self._snapshot(), weights)

    def save_after_fault(self, told: TrainingCallbacks) -> None:
        """Take back what has failed and make the state before it durable, where there is a way and it is sound."""
        if self._whole is None:
            return
        random, self._epoch_loss, self._row_loss, self._gradient_norm = self._whole
        with suppress(*_NOT_SAVED):
            self._optimizer.zero_grad()
            restore_random_state(random)
            self._check_finite(float(self._epoch_loss + self._row_loss))
            self._check_converging(float(self._row_loss) / max(1, self.state.row_tokens))
            for weight in self._model.parameters():
                self._check_finite(float(weight.detach().abs().max()))
            self.save(told)

    def load_best(self) -> None:
        best_step = self.state.history.best_step
        if best_step is not None and best_step != self.state.step:
            self._model.load_state_dict(self._store.weights(best_step))

    def close(self) -> None:
        self._reader.close()

    def progress(self) -> Progress:
        state, total = self.state, self._total_steps
        loss = float(self._row_loss) / state.row_tokens if state.row_tokens else state.curve.loss_nats or 0.0
        validated = state.validation_loss_nats if self._validated_step == state.step else None
        speed = self._tokens_per_second()
        return Progress(
            epoch=self._epoch(),
            total_epochs=self._effective.num_epochs,
            step=state.step,
            total_steps=total,
            progress=100.0 if self._finished else 100 * state.step / total,
            train_loss=loss,
            train_perplexity=perplexity(loss),
            learning_rate=self._learning_rate(state.step - 1),
            grad_norm=float(self._gradient_norm),
            tokens_per_second=speed,
            chars_per_second=speed * self._chars_per_token,
            eta_seconds=0.0 if self._finished else state.elapsed_seconds / state.step * (total - state.step),
            val_loss=validated,
            val_perplexity=None if validated is None else perplexity(validated),
            best_val_loss=state.history.best_loss_nats,
            train_bits_per_char=self._bits_per_char("train", loss),
            val_bits_per_char=self._bits_per_char("validation", validated),
            best_val_bits_per_char=self._bits_per_char("validation", state.history.best_loss_nats),
        )

    def _bits_per_char(self, split: Split, loss_nats: float | None) -> float | None:
        return None if loss_nats is None else self._sizes[split].bits_per_char(loss_nats, self._model.objective)

    def _rows_of_step(self, position: int) -> list[NDArray[np.uint32]]:
        """The rows of each batch of the step that begins at a place of the epoch's order."""
        size = self._compute.batch_size
        taken = self._order[position : position + size * self._effective.gradient_accumulation]
        return [taken[i : i + size] for i in range(0, len(taken), size)]

    def _backward(self, batch: Batch, tokens_of_step: int) -> None:
        with autocast(self._compute):
            logits = self._model.forward(batch.inputs, batch.lengths)  # (B, T, V)
        # added up in fp32 whatever the model computes in: a sum of bf16 has three digits
        loss_sum = functional.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), reduction="sum")
        torch.autograd.backward([self._scaler.scale(loss_sum / tokens_of_step)])
        self._epoch_loss = self._epoch_loss + loss_sum.detach()
        self._row_loss = self._row_loss + loss_sum.detach()

    def _advance(self, rows: int, tokens: int, seconds: float) -> None:
        """Count a step; the end of an epoch empties its sums and draws the next order."""
        old = self.state
        elapsed = perf_counter() - self._origin
        epochs, position, epoch_tokens = old.epochs, old.position + rows, old.epoch_tokens + tokens
        epoch_start = old.epoch_start_seconds
        if position == len(self._rows):
            mean = self._check_finite(float(self._epoch_loss)) / epoch_tokens
            epochs = (*epochs, EpochSummary(train_loss_nats=mean, seconds=elapsed - epoch_start))
            position, epoch_tokens, epoch_start = 0, 0, elapsed
            self._epoch_loss.zero_()
            self._order = epoch_order(len(self._rows), self._effective.seed, len(epochs))
        out_of_time = self._effective.max_seconds is not None and elapsed >= self._effective.max_seconds
        self._update(
            step=old.step + 1,
            position=position,
            epochs=epochs,
            epoch_tokens=epoch_tokens,
            row_tokens=old.row_tokens + tokens,
            tokens_seen=old.tokens_seen + tokens,
            is_last_step=old.step + 1 == self._total_steps or out_of_time,
            elapsed_seconds=elapsed,
            epoch_start_seconds=epoch_start,
            train_seconds=old.train_seconds + seconds,
        )

    def _validate(self, check_stop: Callable[[], None]) -> None:
        loss_nats = evaluate(self._model, self._validation, self._compute, check_stop).loss_nats
        self._check_finite(loss_nats)
        history = self.state.history.after(
            loss_nats, step=self.state.step, epoch=self._epoch(), rule=self._effective.early_stopping
        )
        self._update(validation_loss_nats=loss_nats, history=history)
        self._validated_step = self.state.step

    def _next_row(self, validated: bool) -> CurveRow:
        """Close the stretch since the last row: its mean loss, and the area under the line between the two points."""
        state = self.state
        loss = self._check_converging(float(self._row_loss) / state.row_tokens)
        width = 0 if state.curve.loss_nats is None else state.step - state.curve.step
        area = state.curve.area + width * (loss + (state.curve.loss_nats or 0.0)) / 2
        self._speed = self._tokens_per_second()
        self._row_loss.zero_()
        curve = CurveState(rows=state.curve.rows + 1, step=state.step, loss_nats=loss, area=area)
        self._update(row_tokens=0, curve=curve)
        self._row_start = self.state
        return CurveRow(
            step=state.step,
            epoch=self._epoch(),
            train_loss=loss,
            lr=self._learning_rate(state.step - 1),
            grad_norm=float(self._gradient_norm),
            tokens=state.tokens_seen,
            elapsed_seconds=state.elapsed_seconds,
            val_loss=state.validation_loss_nats if validated else None,
            epoch_train_loss=state.epochs[-1].train_loss_nats if state.position == 0 else None,
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        if checkpoint.state.request_hash != self.state.request_hash:
            raise AppError(ErrorCode.CHECKPOINT_CORRUPT, "The checkpoint belongs to another request.")
        self.state = checkpoint.state
        self._model.load_state_dict(checkpoint.weights)
        self._optimizer.load_state_dict(checkpoint.optimizer_state["optimizer"])
        self._scaler.load_state_dict(checkpoint.optimizer_state["scaler"])
        restore_random_state(checkpoint.optimizer_state["random"])

    def _as_whole(self) -> _Whole:
        return _Whole(random_state(), self._epoch_loss, self._row_loss, self._gradient_norm)

    def _snapshot(self) -> TrainingState:
        """The state with the sums that are kept on the device."""
        self._update(
            epoch_loss_nats=float(self._epoch_loss),
            row_loss_nats=float(self._row_loss),
            gradient_norm=float(self._gradient_norm),
        )
        return self.state

    def _update(self, **changes: object) -> None:
        self.state = self.state.model_copy(update=changes)

    def _epoch(self) -> int:
        """The epoch that the last step belonged to, from 1."""
        return len(self.state.epochs) + (self.state.position > 0)

    def _learning_rate(self, step: int) -> float:
        return learning_rate(step, self._total_steps, self._effective)

    def _tokens_per_second(self) -> float:
        tokens = self.state.tokens_seen - self._row_start.tokens_seen
        return tokens / (self.state.train_seconds - self._row_start.train_seconds) if tokens else self._speed

    def _check_converging(self, loss_nats: float) -> float:
        """Refuse a mean loss that is far beyond that of a uniform guess and of the weights that the run began with."""
        beginning = max(math.log(self._model.vocab_size), self.state.initial_loss_nats or 0.0)
        if loss_nats > _DIVERGED * beginning:
            message = (
                f"The training has diverged: at step {self.state.step} its loss is {loss_nats:.3g} nats per token,"
                f" where a guess has {beginning:.3g}. Try a smaller `learning_rate` or `gradient_clipping`."
            )
            raise AppError(ErrorCode.TRAINING_NAN_LOSS, message)
        return loss_nats

    def _check_finite(self, loss_nats: float) -> float:
        if not math.isfinite(loss_nats):
            message = f"The loss is not finite any more at step {self.state.step}: try a smaller `learning_rate`."
            raise AppError(ErrorCode.TRAINING_NAN_LOSS, message)
        return loss_nats


def _without_compiler() -> None:
    """Keep torch's optimizers from importing its compiler, which nothing here uses, at their first call.

    That takes a second, at each start of a training; what does it is a wrapper around some of their methods.
    """
    optimizers: object = torch.optim.Optimizer
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        method: Callable[[], object] = getattr(optimizers, name)
        unwrapped: object = inspect.unwrap(method)
        setattr(optimizers, name, unwrapped)


def _optimizer(model: LanguageModel, effective: EffectiveRequest) -> torch.optim.Optimizer:
    _without_compiler()
    config, rate = effective.optimizer, effective.learning_rate
    groups = _by_decay(model, config)
    match config.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=rate)
        case "adam":
            return torch.optim.Adam(groups, lr=rate)
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate)
        case unknown:
            assert_never(unknown)


def _by_decay(model: LanguageModel, config: OptimizerConfig) -> list[dict[str, object]]:
    """The weights that move as groups of the optimizer, if there are such: those that decay, and those that do not."""
    given: dict[str, object] = config.model_dump(exclude={"name", "weight_decay_exclude"}, exclude_none=True)
    free = {
        weight
        for module in model.modules()
        for name, weight in module.named_parameters(recurse=False)
        if _kind(module, name) in config.weight_decay_exclude
    }
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    decaying = given | {"params": [weight for weight in moving if weight not in free]}
    others = given | {"params": [weight for weight in moving if weight in free], "weight_decay": 0.0}
    return [group for group in (decaying, others) if group["params"]]


def _kind(module: nn.Module, name: str) -> DecayFree | None:
    """What a weight of a module is, by its name there; None for most."""
    if "bias" in name:
        return "bias"
    layer = type(module).__name__  # by its name, as the library's own normalizations have no class in common
    if layer.endswith("Norm"):
        return "norm"
    return "embedding" if layer == "Embedding" else None


def _is_multiple(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
