"""Answers of the HTTP API that are no other record: pages of runs, files of an artifact, accepted cancellations."""

from typing import Literal

from trainer.contracts.base import FileRecord, Frozen, Identifier
from trainer.contracts.runs import RunStatus

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


class CancelAnswer(Frozen):
    status: Literal["cancellation-requested"] = "cancellation-requested"


class ArtifactFiles(Frozen):
    """The files of a completed run, tokenizer, experiment or battery."""

    kind: ArtifactKind
    id: Identifier
    files: tuple[FileRecord, ...]
    result_bytes: int
    """Size of these files together."""
