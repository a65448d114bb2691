"""Answers of the HTTP API that are no other record: pages of runs, files of an artifact, accepted cancellations."""

from typing import Literal

from pydantic import JsonValue

from trainer.contracts.base import FileRecord, Frozen, Identifier
from trainer.contracts.runs import EffectiveRequest, RunStatus
from trainer.contracts.training_options import ChosenValue

JobKindName = Literal["experiments", "batteries"]
"""Kinds of jobs whose results are reports."""
ArtifactKind = Literal["models", "tokenizers", JobKindName]


class RunPage(Frozen):
    """Runs in the order that was asked for."""

    runs: tuple[RunStatus, ...]
    total: int
    """Number of runs on all pages; with `by_group`, of groups and single runs."""
    next_cursor: str | None
    """None on the last page."""


class CheckedTraining(Frozen):
    """A train request that would be accepted, with its estimated cost; nothing was started."""

    request: dict[str, JsonValue]
    """The fields of the request that were given."""
    effective: EffectiveRequest
    """The request of the first run, with all values."""
    seeds: tuple[int, ...]
    chosen: tuple[ChosenValue, ...]
    """The values that the request leaves out and rules have chosen, with their reasons."""
    cost: tuple[str, ...]
    """The estimated time, memory and disk, as sentences."""
    warnings: tuple[str, ...]
    """Warnings about the numbers of the run."""
    notes: tuple[str, ...] = ()
    """What the program has chosen or left out, in sentences."""


class CancelAnswer(Frozen):
    status: Literal["cancellation-requested"] = "cancellation-requested"


class ArtifactFiles(Frozen):
    """The files of a completed run, tokenizer, experiment or battery."""

    kind: ArtifactKind
    id: Identifier
    files: tuple[FileRecord, ...]
    result_bytes: int
    """Size of these files together."""
