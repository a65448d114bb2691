"""Refuses bf16 before a run is queued if the CPU cannot train the architecture in it; imports no torch."""

import asyncio
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version

import structlog
from pydantic import ValidationError
from pydantic_core import to_json

from trainer.config.compatibility import Bf16Trial, check_bf16
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError
from trainer.contracts.models import Architecture
from trainer.system.child_environment import tuned_environment
from trainer.system.files import read_record, write_atomically
from trainer.system.hardware import instruction_set

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_TRIAL_SECONDS = 120.0


async def check_bf16_here(architecture: Architecture, settings: Settings) -> None:
    """Raise INVALID_INPUT if this machine's CPU cannot train an architecture in bf16.

    The first call runs a trial in a new process, which takes some seconds, and stores the result. If the trial itself
    fails, the worker decides.
    """
    trial = await asyncio.to_thread(_trial, architecture, settings)
    if trial is not None:
        check_bf16(trial)


def _trial(architecture: Architecture, settings: Settings) -> Bf16Trial | None:
    key = to_json({"architecture": architecture, "torch": version("torch")} | instruction_set())
    stored = settings.app.data_root / "bf16_trials" / f"{sha256(key).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        return read_record(stored, Bf16Trial)
    trial = _run_trial(architecture, settings)
    if trial is not None:
        with suppress(OSError, AppError):  # the next request tries again
            stored.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(stored, trial.model_dump_json().encode())
    return trial


def _run_trial(architecture: Architecture, settings: Settings, seconds: float = _TRIAL_SECONDS) -> Bf16Trial | None:
    command = [sys.executable, "-m", "trainer.training.bf16", architecture]
    try:
        tried = subprocess.run(
            command, env=tuned_environment(settings), capture_output=True, text=True, timeout=seconds, check=True
        )
        return Bf16Trial.model_validate_json(tried.stdout.rpartition("\n")[2])
    except (OSError, subprocess.SubprocessError, ValidationError) as error:
        log.warning("bf16_trial_failed", architecture=architecture, error=type(error).__name__)
        return None
