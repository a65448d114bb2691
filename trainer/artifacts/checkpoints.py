"""Checkpoints that can be named: `RUN@1200` is a run's model after step 1200."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError

from trainer.artifacts.checkpoint_files import (
    STATE,
    WEIGHTS,
    TrainingState,
    checkpoint_steps,
    scheduled_folder,
    sealed_files,
    step_folder,
)
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.presets import request_hash
from trainer.config.validation import safe_name
from trainer.contracts.base import changed, model_name
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import EffectiveRequest, RunModel
from trainer.contracts.training_options import WrittenCount
from trainer.system.files import BrokenFile, read_record

_SHOWN_STEPS = 8
_count_adapter: TypeAdapter[int] = TypeAdapter(WrittenCount, config=ConfigDict(defer_build=True))


class NamedModel(NamedTuple):
    """A model of a run: that of its end, or of a checkpoint."""

    run: RunDirectory
    step: int | None
    """The step of the checkpoint; None for the model of a completed run."""
    effective: EffectiveRequest

    @property
    def name(self) -> str:
        """The name of the model: `RUN`, or `RUN@1200`."""
        return model_name(self.run.run_id, self.step)

    @property
    def is_permanent(self) -> bool:
        """False for a checkpoint that its training replaces by a later one, or a cleanup removes."""
        return self.step is None or checkpoint_folder(self.run, self.step).parent != self.run.checkpoints


def named_model(runs: RunStore, name: str) -> NamedModel:
    """Return the model of a name: `RUN`, `RUN@1200`, `RUN@best`, `RUN@words:1M`, `RUN@tokens:1M` or `RUN@epoch:2`.

    Raises RUN_NOT_FOUND and the errors of `model_of`.
    """
    run_id, at, checkpoint = name.partition("@")
    return model_of(runs.get(run_id), checkpoint if at else None)


def model_of(run: RunDirectory, checkpoint: str | None) -> NamedModel:
    """Return the model of a run's end, or of a checkpoint by what follows the `@`.

    Raises DATA_NOT_FOUND for a checkpoint that was not kept, INVALID_INPUT for what names none, and RUN_NOT_READY for
    a run without a model of its end.
    """
    step = None if checkpoint is None else _step(run, checkpoint)
    if step is None:
        return NamedModel(run, None, run.completed_manifest().effective)
    manifest = run.manifest()
    return NamedModel(run, step, run.record().effective if manifest is None else manifest.effective)


def run_model(name: str, runs: RunStore) -> RunModel:
    """Return the completed run or the checkpoint of a name; raises the errors of `named_model`."""
    run, step, effective = named_model(runs, name)
    files = run.completed_manifest().files if step is None else sealed_files(checkpoint_folder(run, step))
    [weights] = [file.sha256 for file in files if file.path == WEIGHTS]
    series = request_hash(changed(effective, seed=0))
    return RunModel(
        run_id=run.run_id,
        checkpoint=step,
        label=effective.label,
        seed=effective.seed,
        series=series if step is None else sha256(f"{series}@{step}".encode()).hexdigest(),
        weights_sha256=weights,
    )


def checkpoint_folder(run: RunDirectory, step: int) -> Path:
    """Return the folder of a checkpoint: the permanent one if its schedule has kept it."""
    kept = step_folder(scheduled_folder(run.checkpoints), step)
    return kept if kept.exists() else step_folder(run.checkpoints, step)


def kept_steps(run: RunDirectory) -> list[int]:
    """Return the steps of all checkpoints that a run has, in ascending order; those of a schedule stay."""
    return sorted({*checkpoint_steps(scheduled_folder(run.checkpoints)), *checkpoint_steps(run.checkpoints)})


def _step(run: RunDirectory, given: str) -> int | None:
    """Return the step of a checkpoint by what follows the `@`; None for the model of a completed run."""
    if given == "best":
        return _best_step(run)
    unit, _, amount = given.rpartition(":")
    count = _count(amount)
    if count is None or unit not in ("", "epoch", "words", "tokens"):
        message = (
            f"`@{safe_name(given)}` names no checkpoint: give a step as in `{run.run_id}@1200`, or `@best`,"
            " `@words:1M`, `@tokens:1M` or `@epoch:2`."
        )
        raise AppError(ErrorCode.INVALID_INPUT, message)
    if unit == "":
        found = [step for step in kept_steps(run) if step == count]
    else:
        found = [step for step, state in _states(run) if _is_at(state, unit, count)]
    if not found:
        raise AppError(ErrorCode.DATA_NOT_FOUND, _not_kept(run, given))
    return found[0]


def _is_at(state: TrainingState, unit: str, count: int) -> bool:
    """Return True for the first checkpoint after this many epochs, words or tokens."""
    if unit == "epoch":
        return (len(state.epochs), state.position) == (count, 0)
    seen = state.seen
    read, in_step = (seen.words, seen.words_in_step) if unit == "words" else (seen.tokens, seen.tokens_in_step)
    return read - in_step < count <= read


def _count(text: str) -> int | None:
    """Return a count such as 1200, 500k or 1.5M; None for another text."""
    try:
        return _count_adapter.validate_python(text)
    except ValidationError:
        return None


def _best_step(run: RunDirectory) -> int | None:
    """Return the step with the lowest validation loss; None for a completed run, whose model is that one."""
    manifest = run.manifest()
    if manifest is not None and manifest.status == "completed":
        return None
    for step in reversed(checkpoint_steps(run.checkpoints)):
        try:
            best = read_record(step_folder(run.checkpoints, step) / STATE, TrainingState).history.best_step
        except (OSError, BrokenFile):
            continue  # it is being written, or damaged
        if best is not None:
            return best
    raise AppError(ErrorCode.DATA_NOT_FOUND, f"The run {run.quoted} has not saved a validated checkpoint yet.")


def _states(run: RunDirectory) -> Iterator[tuple[int, TrainingState]]:
    """Yield the steps of a run's checkpoints with the states of their trainings; unreadable ones are left out."""
    for step in kept_steps(run):
        try:
            yield step, read_record(checkpoint_folder(run, step) / STATE, TrainingState)
        except (OSError, BrokenFile):
            continue


def _not_kept(run: RunDirectory, given: str) -> str:
    steps = kept_steps(run)
    if not steps:
        return f"The run {run.quoted} has no checkpoints: a training keeps those that `checkpoint_schedule` names."
    shown = ", ".join(map(str, steps[:_SHOWN_STEPS])) + (", …" if len(steps) > _SHOWN_STEPS else "")
    return f"The run {run.quoted} has kept no checkpoint '{safe_name(given)}'. It has those of the steps {shown}."
