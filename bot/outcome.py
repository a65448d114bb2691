"""What came of a run that has ended, besides its events: its files, what its model writes, its last log lines."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError

from bot.run_logs import last_lines
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import FileRecord
from trainer.contracts.inference import Sample
from trainer.system.files import BrokenFile, read_regular

_LOG_LINES = 8
_SAMPLES = 2


class Outcome(NamedTuple):
    files: Sequence[FileRecord] = ()
    samples: Sequence[Sample] = ()
    """Some of what the model writes by itself."""
    last_lines: Sequence[str] = ()
    """Of the log of a run that has failed."""


def read_outcome(run: RunDirectory) -> Outcome:
    """Read it from disk; what is missing or broken is left out."""
    try:
        manifest = run.manifest()
    except BrokenFile:
        manifest = None
    if manifest is None:
        return Outcome()
    if manifest.status == "failed":
        return Outcome(last_lines=last_lines(run, _LOG_LINES))
    return Outcome(manifest.files, _samples(run))


def _samples(run: RunDirectory) -> Sequence[Sample]:
    try:
        samples = [Sample.model_validate_json(line) for line in read_regular(run.samples).splitlines()]
    except (OSError, ValidationError):
        return ()
    by_itself = [sample for sample in samples if not sample.prompt]
    return [sample for sample in by_itself or samples if sample.text.strip()][:_SAMPLES]
