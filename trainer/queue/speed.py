"""Measures the speed of a training that has `minutes`, in a child process, to choose the size of its model."""

import subprocess
from collections.abc import Sequence

import structlog
from pydantic import ConfigDict, TypeAdapter, ValidationError

from trainer.config.defaults import Candidate, Pace, TrainingText, best_pace
from trainer.config.settings import Settings
from trainer.contracts.runs import EffectiveRequest
from trainer.system.child_environment import tuned_environment
from trainer.system.python import python_command

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_TRIAL_SECONDS = 60.0
_REQUESTS: TypeAdapter[list[EffectiveRequest]] = TypeAdapter(
    list[EffectiveRequest], config=ConfigDict(defer_build=True)
)
_SPEEDS: TypeAdapter[list[float]] = TypeAdapter(list[float])


def measure_pace(requests: Sequence[EffectiveRequest], text: TrainingText, settings: Settings) -> Pace | None:
    """Measure requests that differ in the size of their model, within seconds; return the pace of the best one.

    Returns None if the measurement fails: the run then measures itself, and its size is chosen by its text.
    """
    command = python_command("-m", "trainer.training.speed", str(text.vocab_size))
    try:
        tried = subprocess.run(
            command,
            input=_REQUESTS.dump_json(list(requests)),
            env=tuned_environment(settings),
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            check=True,
        )
        speeds = _SPEEDS.validate_json(tried.stdout.rpartition(b"\n")[2])
    except (OSError, subprocess.SubprocessError, ValidationError) as error:
        log.warning("speed_trial_failed", error=type(error).__name__)
        return None
    candidates = [
        Candidate(one.model_size, one.model.parameter_count(text.vocab_size), one.batch_size * one.max_seq_len, speed)
        for one, speed in zip(requests, speeds, strict=True)
    ]
    return best_pace(candidates, text, requests[0].minutes or 0.0)
