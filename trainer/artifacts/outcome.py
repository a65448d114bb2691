"""Outcome of an ended run beside its events: files, samples and the last log lines, without paths of the machine."""

import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import FileRecord
from trainer.contracts.generations import Sample
from trainer.contracts.runs import RunManifest
from trainer.contracts.training_options import LogLevel
from trainer.system.files import read_regular, whole_record
from trainer.system.logs import LogReader, readable_line

_MAX_LOG_LINES = 8
_MAX_READ_LINES = 20_000
"""Lines at the end of a log that are searched for a level: nearly all of a log."""
_LEVELS = logging.getLevelNamesMapping()
_MAX_SAMPLES = 2
_record_adapter = TypeAdapter(dict[str, object])
_ADDRESS = re.compile(r"\b\w+://[^\s\"']+")
_PATH = re.compile(r"(?<![\w.<>/\\])(?:[A-Za-z]:)?[/\\]+(?:[^\s\"'<>:/\\]+[/\\]+)*([^\s\"'<>:/\\]+)")


class Outcome(NamedTuple):
    files: Sequence[FileRecord] = ()
    samples: Sequence[Sample] = ()
    """Generated texts."""
    last_lines: Sequence[str] = ()
    """Last lines of the log, of a failed run."""


def read_outcome(run: RunDirectory) -> Outcome:
    """Read the outcome from disk; missing or broken files are left out."""
    manifest = whole_record(run.result, RunManifest)
    if manifest is None:
        return Outcome()
    if manifest.status == "failed":
        return Outcome(last_lines=last_lines(run, _MAX_LOG_LINES, "WARNING"))
    return Outcome(run.result_files() if manifest.status == "completed" else (), _samples(run))


def _samples(run: RunDirectory) -> Sequence[Sample]:
    try:
        samples = [Sample.model_validate_json(line) for line in read_regular(run.samples).splitlines()]
    except (OSError, ValidationError):
        return ()
    unprompted = [sample for sample in samples if not sample.prompt]
    return [sample for sample in unprompted or samples if sample.text.strip()][:_MAX_SAMPLES]


def last_lines(run: RunDirectory, count: int, level: LogLevel = "DEBUG") -> list[str]:
    """Return the last lines of a run's log from a level on, followed by the error output of a process that crashed."""
    stored = LogReader(run.logs).last(count if level == "DEBUG" else _MAX_READ_LINES)
    lines = [shown_line(line, stored=False) for line in stored if _is_shown(line, level)][-count:]
    manifest = whole_record(run.result, RunManifest)
    crash = () if manifest is None else manifest.last_lines
    return [*lines, *(without_paths(line.rstrip("\n")) for line in crash)][-count:]


def _is_shown(line: str, level: LogLevel) -> bool:
    """Return whether a line of the log has this level or a worse one; so do lines that are not structured."""
    try:
        name = str(_record_adapter.validate_json(line).get("level", "critical"))
    except ValidationError:
        return True
    return _LEVELS.get(name.upper(), _LEVELS["CRITICAL"]) >= _LEVELS[level]


def without_paths(text: str) -> str:
    """Remove addresses, and reduce paths to file names."""
    return _PATH.sub(_file_name, _ADDRESS.sub("…", text))


def shown_line(line: str, *, stored: bool) -> str:
    """Return a line of a run's log without paths: readable, or as stored, which is a JSON object."""
    if not stored:
        return without_paths(readable_line(line))
    try:
        record = _record_adapter.validate_json(line)
    except ValidationError:
        return without_paths(line)
    shown = {name: without_paths(value) if isinstance(value, str) else value for name, value in record.items()}
    return line if shown == record else to_json(shown).decode()


def _file_name(path: re.Match[str]) -> str:
    last: str = path[1]
    return f"…/{last}" if "." in last else "…"
