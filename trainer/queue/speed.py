"""The speed of trainings: for the time of one, and for the best size of one that has `minutes`."""

import math
import subprocess
from collections.abc import Sequence

import structlog
from pydantic import ConfigDict, TypeAdapter, ValidationError

from trainer.config.defaults import PACE_SIZES, Candidate, best_pace, trial_seconds
from trainer.config.presets import has_free_size
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError
from trainer.contracts.models import NgramConfig
from trainer.contracts.runs import EffectiveRequest, TrainRequest
from trainer.contracts.training_options import Pace
from trainer.queue.cost import preview_cost, step_tokens
from trainer.queue.resolution import Facts, Resolution, resolve
from trainer.queue.resolve import TrainingPreview
from trainer.system.child_environment import tuned_environment
from trainer.system.python import python_command

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_START_SECONDS, _STEP_SECONDS = 60.0, 2.0
_REQUESTS: TypeAdapter[list[EffectiveRequest]] = TypeAdapter(
    list[EffectiveRequest], config=ConfigDict(defer_build=True)
)
_SPEEDS: TypeAdapter[list[float]] = TypeAdapter(list[float])


def size_candidates(request: TrainRequest, facts: Facts, settings: Settings) -> list[Resolution]:
    """Resolve a request with `minutes` in the sizes that it may choose and that fit into this machine, smallest first.

    Raises AppError if the smallest size does not fit.
    """
    sizes = PACE_SIZES if has_free_size(request) else (request.model_size,)
    found, fitting = [resolve(changed(request, model_size=size), facts) for size in sizes], list[Resolution]()
    for one in found:
        try:
            preview_cost(one.effective, one.measured, facts.sample, settings)
        except AppError:
            if not fitting:
                raise
            break
        fitting.append(one)
    return fitting


def pace_of(candidates: Sequence[Resolution], speeds: Sequence[float]) -> Pace:
    """Return the pace of the best of the candidates whose speed was measured, one at least."""
    text = candidates[0].measured.for_rules
    measured = [
        Candidate(one.model_size, one.model.parameter_count(text.vocab_size), one.batch_size * one.max_seq_len, speed)
        for one, speed in zip((found.effective for found in candidates), speeds, strict=False)
    ]
    return best_pace(measured, text, candidates[0].effective.minutes or 0.0)


def measure_pace(request: TrainRequest, facts: Facts, settings: Settings) -> Pace | None:
    """Measure a request with `minutes` in a process of its own, within seconds; None if that fails.

    Raises AppError if the smallest model does not fit into this machine.
    """
    candidates = size_candidates(request, facts, settings)
    vocab_size, seconds = candidates[0].measured.for_rules.vocab_size, trial_seconds(request.minutes or 0.0)
    speeds = _speeds([one.effective for one in candidates], vocab_size, seconds, settings)
    return pace_of(candidates, speeds) if speeds else None


def with_measured_time(training: TrainingPreview, settings: Settings) -> TrainingPreview:
    """Return a preview with the time of its training, measured in seconds in a process of its own.

    A preview with a known time stays as it is, and so does that of a model that counts.
    """
    effective, cost = training.effective, training.cost
    if cost.seconds is not None or training.vocab_size is None or isinstance(effective.model, NgramConfig):
        return training
    speeds = _speeds([effective], training.vocab_size, _STEP_SECONDS, settings)
    if not speeds:
        return training
    seconds = min(cost.steps * step_tokens(effective) / speeds[0], effective.max_seconds or math.inf)
    return training._replace(cost=changed(cost, seconds=seconds, is_measured=True))


def _speeds(
    requests: Sequence[EffectiveRequest], vocab_size: int, seconds: float, settings: Settings
) -> Sequence[float]:
    """Return the tokens per second of the first of some trainings; of none if the measurement fails."""
    try:
        tried = subprocess.run(
            python_command("-m", "trainer.training.speed", str(vocab_size), str(seconds)),
            input=_REQUESTS.dump_json([*requests]),
            env=tuned_environment(settings),
            capture_output=True,
            timeout=_START_SECONDS + 10 * seconds,
            check=True,
        )
        return _SPEEDS.validate_json(tried.stdout.rpartition(b"\n")[2])
    except (OSError, subprocess.SubprocessError, ValidationError) as error:
        log.warning("speed_trial_failed", error=type(error).__name__)
        return ()
