"""What a training costs before it is queued: parameters by closed form, memory, disk and time as measured.

A training holds, in numbers of four bytes: the weights; a gradient of each that moves; what the optimizer keeps of it;
for every token of a batch what the backward pass needs, and the logits four times (themselves, their log-softmax, and
the gradients of the two). Between the steps it holds a checkpoint in memory: the first one is read back from the disk,
so that weights and optimizer are there four times.
"""

import math
from typing import NamedTuple

from trainer.config.presets import batch_rows
from trainer.contracts.checkpoint_schedule import scheduled_steps
from trainer.contracts.cost import Cost
from trainer.contracts.models import RnnConfig
from trainer.contracts.runs import EffectiveRequest

SURE = 1.5
"""An estimate is within this factor of what was measured: less than an estimate over it is not enough."""

_NUMBER_BYTES = 4
_LOGITS_COPIES = 4
_COPIES_WHILE_SAVING = 4
_MOST_CHECKPOINTS = 3
"""Two that are kept and the one that is being written."""
_MOMENTS = {"adam": 2, "adamw": 2}
_BASE_BYTES = {True: 320 << 20, False: 420 << 20}
"""Of the process itself, by whether the model is recurrent; the others need one more library."""

_OPERATIONS = 6
"""Of a training per weight and token: two forward, four backward."""
_OPERATIONS_CHECKPOINTED = 8
_OPERATIONS_FORWARD = 2
_CPU_SPEED = {"lstm": 8e10, "gru": 3e10, "rnn": 4e10}
_OTHER_CPU_SPEED = 6e10
"""Operations per second and thread, as on one processor of 2024."""
_GPU_SPEED = 2e13
_STEP_SECONDS = 5e-3
_PLACE_SECONDS = 2e-5
"""Of one recurrent layer at one place of a row, however small it is."""
_UPDATE_SECONDS = 2e-9
"""Of one weight in the optimizer."""
_START_SECONDS = {True: 4.0, False: 7.0}
_SAVED_PER_SECOND = 2e8
_BF16_WIDTH = 256
"""Narrower models gain little: a fifth at 128, twice and more at 384."""


class TextSize(NamedTuple):
    """What a run reads, as ids: those that it trains on, and those of one validation and of the test."""

    train: float
    validation: float
    test: float


class Machine(NamedTuple):
    """What the training would run on, as far as that is known."""

    on_cuda: bool
    has_bf16: bool
    """Whether its processor computes in bf16 natively."""
    memory_bytes: int | None
    """None where the worker is elsewhere, or a GPU may do the work."""
    free_disk_bytes: int | None


def estimate(
    effective: EffectiveRequest, vocab_size: int, text: TextSize, machine: Machine, *, slowness: float = 1.0
) -> Cost:
    """What a training needs; `slowness` is how much longer the steps of comparable runs took than is foreseen."""
    model, length = effective.model, effective.max_seq_len
    rows = min(batch_rows(effective, on_cuda=machine.on_cuda), max(1, math.ceil(text.train / length)))
    size = model.size(vocab_size, length)
    is_recurrent = isinstance(model, RnnConfig)
    moving = size.parameters - (size.embedding if effective.freeze_embeddings else 0)
    saved = size.parameters + moving * _MOMENTS.get(effective.optimizer.name, 0)  # numbers in a checkpoint
    kept = size.kept_between if effective.compute.gradient_checkpointing else size.kept
    in_step = saved + moving + rows * length * (kept + _LOGITS_COPIES * vocab_size)
    held = _NUMBER_BYTES * max(in_step, _COPIES_WHILE_SAVING * saved)

    in_epoch = math.ceil(text.train / (length * rows * effective.gradient_accumulation))
    steps = in_epoch * effective.num_epochs
    steps = max(1, min(steps, effective.max_steps or steps))
    training = steps * slowness * step_seconds(effective, vocab_size, on_cuda=machine.on_cuda)
    epochs = math.ceil(steps / max(1, in_epoch))
    every, saving = effective.eval_every_steps, effective.checkpoint_every_steps
    evaluated = text.validation * (epochs + (steps // every if every else 0)) + text.test
    of_forward = _OPERATIONS_FORWARD * size.multiplied / _speed(effective, on_cuda=machine.on_cuda)
    saves = epochs if saving is None else steps // saving + 1
    kept_for_good = scheduled_steps(effective.checkpoint_schedule, total_steps=steps, steps_per_epoch=in_epoch)
    disk = _NUMBER_BYTES * (min(saves, _MOST_CHECKPOINTS) * saved + (1 + len(kept_for_good)) * size.parameters)
    seconds = min(training, effective.max_seconds or training) + slowness * evaluated * of_forward
    seconds += _START_SECONDS[is_recurrent] + saves * _NUMBER_BYTES * saved / _SAVED_PER_SECOND
    of_full_width = ("fp32",) if machine.on_cuda else ("fp32", "auto")
    return Cost(
        params=size.parameters,
        memory_bytes=held + (0 if machine.on_cuda else _BASE_BYTES[is_recurrent]),
        disk_bytes=disk,
        steps=steps,
        seconds=seconds,
        bf16_pays=machine.has_bf16 and effective.precision in of_full_width and model.hidden_size >= _BF16_WIDTH,
    )


def step_seconds(effective: EffectiveRequest, vocab_size: int, *, on_cuda: bool) -> float:
    """How long one step should take."""
    model, rows, length = effective.model, batch_rows(effective, on_cuda=on_cuda), effective.max_seq_len
    size = model.size(vocab_size, length)
    operations = _OPERATIONS_CHECKPOINTED if effective.compute.gradient_checkpointing else _OPERATIONS
    of_batch = operations * size.multiplied * rows * length / _speed(effective, on_cuda=on_cuda)
    if isinstance(model, RnnConfig):
        of_batch += _PLACE_SECONDS * length * model.num_layers * (1 + model.bidirectional)
    of_update = 0.0 if on_cuda else _UPDATE_SECONDS * size.parameters
    return effective.gradient_accumulation * of_batch + of_update + _STEP_SECONDS


def _speed(effective: EffectiveRequest, *, on_cuda: bool) -> float:
    """Operations per second."""
    if on_cuda:
        return _GPU_SPEED
    return _CPU_SPEED.get(effective.model.architecture, _OTHER_CPU_SPEED) * max(1, effective.threads)
