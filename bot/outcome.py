"""Outcome of an ended run beside its events: files, samples and the last log lines."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError

from bot.run_logs import last_lines
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import FileRecord
from trainer.contracts.inference import Sample
from trainer.system.files import BrokenFile, read_regular

_MAX_LOG_LINES = 8
_MAX_SAMPLES = 2


class Outcome(NamedTuple):
    files: Sequence[FileRecord] = ()
    samples: Sequence[Sample] = ()
    """Generated texts."""
    last_lines: Sequence[str] = ()
    """Last lines of the log, of a failed run."""


def read_outcome(run: RunDirectory) -> Outcome:
    """Read the outcome from disk; missing or broken files are left out."""
    try:
        manifest = run.manifest()
    except BrokenFile:
        manifest = None
    if manifest is None:
        return Outcome()
    if manifest.status == "failed":
        return Outcome(last_lines=last_lines(run, _MAX_LOG_LINES))
    return Outcome(manifest.files, _samples(run))


def _samples(run: RunDirectory) -> Sequence[Sample]:
    try:
        samples = [Sample.model_validate_json(line) for line in read_regular(run.samples).splitlines()]
    except (OSError, ValidationError):
        return ()
    unprompted = [sample for sample in samples if not sample.prompt]
    return [sample for sample in unprompted or samples if sample.text.strip()][:_MAX_SAMPLES]
