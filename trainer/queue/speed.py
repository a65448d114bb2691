"""The pace of a training that has `minutes`, which its worker measures: the sizes that it may have, and the best."""

import subprocess
from collections.abc import Sequence

import structlog
from pydantic import ConfigDict, TypeAdapter, ValidationError

from trainer.config.defaults import PACE_SIZES, Candidate, best_pace, trial_seconds
from trainer.config.presets import has_free_size
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError
from trainer.contracts.runs import EffectiveRequest, TrainRequest
from trainer.contracts.training_options import Pace
from trainer.queue.cost import preview_cost
from trainer.queue.resolution import Facts, Resolution, resolve
from trainer.system.child_environment import tuned_environment
from trainer.system.python import python_command

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_START_SECONDS = 60.0
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


def pace_of(candidates: Sequence[Resolution], speeds: Sequence[float]) -> Pace | None:
    """Return the pace of the best of the candidates whose speed was measured; None if that of none was."""
    text = candidates[0].measured.for_rules
    measured = [
        Candidate(one.model_size, one.model.parameter_count(text.vocab_size), one.batch_size * one.max_seq_len, speed)
        for (one, *_), speed in zip(candidates, speeds, strict=False)
    ]
    return best_pace(measured, text, candidates[0].effective.minutes or 0.0) if measured else None


def measure_pace(request: TrainRequest, facts: Facts, settings: Settings) -> Pace | None:
    """Measure a request with `minutes` in a process of its own, within seconds; None if that fails.

    Raises AppError if the smallest model does not fit into this machine.
    """
    candidates = size_candidates(request, facts, settings)
    seconds, vocab_size = trial_seconds(request.minutes or 0.0), candidates[0].measured.for_rules.vocab_size
    try:
        tried = subprocess.run(
            python_command("-m", "trainer.training.speed", str(vocab_size), str(seconds)),
            input=_REQUESTS.dump_json([one.effective for one in candidates]),
            env=tuned_environment(settings),
            capture_output=True,
            timeout=_START_SECONDS + 10 * seconds,
            check=True,
        )
        return pace_of(candidates, _SPEEDS.validate_json(tried.stdout.rpartition(b"\n")[2]))
    except (OSError, subprocess.SubprocessError, ValidationError) as error:
        log.warning("speed_trial_failed", error=type(error).__name__)
        return None
