"""Records of looks: how often losses on a test split were read, and by whom."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.contracts.base import (
    Frozen,
    GivenName,
    Identifier,
    JobState,
    ModelName,
    Names,
    Sha256,
    Timestamp,
    describe_fields,
)
from trainer.contracts.errors import AppError, ErrorCode, RunError

LookReason = Literal["training", "evaluation", "experiment", "unlock", "study"]
"""The job that read the losses: a training at its end, an evaluation, an experiment, an unlock, or a study."""


class Look(Frozen):
    """`looks/<test>/<model>.<look>.json`: a reading of the losses of one model, or of several together."""

    schema_version: Literal[1] = 1
    models: tuple[ModelName, ...]
    """The models that were measured together, each of which has a file."""
    at: Timestamp
    by: int | str | None = None
    """The Discord user, or the name of the API key, that has asked for it; None at a terminal."""
    reason: LookReason


class LookCount(Frozen, json_schema_extra=describe_fields):
    """How often losses on a test split were read so far."""

    test_id: Sha256
    """Stands for the text of the split: runs with equal ones have one test text."""
    looks: int
    """Readings of a loss on this text; models that are measured together count as one."""
    runs: int
    """Completed trainings on its corpus, of which one may have been chosen."""


class TrainedRun(Frozen):
    """`looks/<test>/<run>.trained.json`: a completed training on the corpus of a test split."""

    schema_version: Literal[1] = 1
    run_id: Identifier


class SameLines(Frozen):
    """`looks/<test>/<other test>.same.json`: looks at another test text tell of this one, whose lines it has."""

    schema_version: Literal[1] = 1
    test_id: Sha256
    """The other test text."""


class TextLock(Frozen):
    """`looks/locks/<sha256>.json`: the test split of each run on a text is locked.

    The keys of its lines are beside it in `<sha256>.keys`, except for locks of earlier versions.
    """

    schema_version: Literal[1] = 1
    at: Timestamp
    by: int | str | None = None
    """The Discord user, or the name of the API key, that has locked it; None at a terminal."""


def test_locked(what: str = "The test split of this run is locked") -> AppError:
    """Return the refusal of a look that needs an unlock."""
    message = f"{what}: measure on `validation`, and read the split once by an unlock when all is decided."
    return AppError(ErrorCode.TEST_LOCKED, message)


MAX_UNLOCKED = 100
"""Runs and groups of one unlock."""


class UnlockRequest(Frozen, json_schema_extra=describe_fields):
    """A request to read the losses of completed runs on their test splits, which counts as one look."""

    runs: Annotated[tuple[GivenName, ...], Field(min_length=1, max_length=MAX_UNLOCKED), Names.RUN]
    """Names of the runs or groups of runs over seeds."""


class UnlockedRun(Frozen, json_schema_extra=describe_fields):
    """A run whose test split may be read from now on, with its losses there once a worker has measured them."""

    run_id: Identifier
    status: JobState
    test_loss: float | None = None
    """In nats per token."""
    test_perplexity: float | None = None
    bits_per_char: float | None = None
    """None for a masked model."""
    error: RunError | None = None
    """Why it could not be measured; the same request measures it again."""


class Unlocked(Frozen, json_schema_extra=describe_fields):
    """The runs of an unlock; the same request again counts no new look, and shows what has been measured meanwhile."""

    runs: tuple[UnlockedRun, ...]
    looks: tuple[LookCount, ...]
    """The looks at each of their test texts, with this one."""

    @property
    def has_ended(self) -> bool:
        return all(run.status in ("completed", "failed") for run in self.runs)
