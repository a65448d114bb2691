"""Answers of the HTTP API that are no other record: pages of runs, files of an artifact, accepted cancellations."""

from typing import Literal

from trainer.contracts.base import FileRecord, Frozen, Identifier
from trainer.contracts.runs import RunStatus

ArtifactKind = Literal["models", "tokenizers", "experiments", "batteries"]


class RunPage(Frozen):
    """Runs, newest first."""

    runs: tuple[RunStatus, ...]
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
