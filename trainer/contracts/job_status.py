"""The status of a job of any kind but runs, the steps of those that count them, and a page of a list."""

from typing import Self

from pydantic import TypeAdapter

from trainer.contracts.base import FileRecord, Frozen, ModelName, RunState, Timestamp
from trainer.contracts.errors import RunError
from trainer.contracts.runs import FINAL_STATES


class JobStatus(Frozen):
    """The status of a job; its kind adds the fields."""

    status: RunState
    created_at: Timestamp
    error: RunError | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in FINAL_STATES


class StepProgress(Frozen):
    """`progress.json`: how many steps of a job are done, such as items that a model has scored."""

    done: int
    total: int


class SteppedStatus(JobStatus):
    """The status of a job that tests models of runs in many steps."""

    message: str
    runs: tuple[ModelName, ...]
    done: int
    """Steps that are done."""
    total: int
    elapsed_seconds: float
    files: tuple[FileRecord, ...] = ()
    """Those of a completed job."""

    @property
    def percent(self) -> float:
        """The steps that are done, in percent of all steps."""
        return 100 * self.done / max(1, self.total)


_statuses: TypeAdapter[tuple[JobStatus, ...]] = TypeAdapter(tuple[JobStatus, ...])


class JobPage(Frozen):
    """A page of jobs, newest first; its kind adds the field with their statuses."""

    total: int
    """Number of jobs on all pages."""
    next_offset: int | None = None
    """The `offset` of the next page; None on the last one."""

    @property
    def jobs(self) -> tuple[JobStatus, ...]:
        """The statuses of this page."""
        fields: dict[str, object] = vars(self)
        return next(_statuses.validate_python(value) for value in fields.values() if isinstance(value, tuple))

    def with_next(self, following: Self) -> Self:
        """Return a page with the jobs of this one and of the following one."""
        fields: dict[str, object] = vars(following)
        name = next(name for name, value in fields.items() if isinstance(value, tuple))
        joined: dict[str, object] = {name: (*self.jobs, *following.jobs)}
        return following.model_copy(update=joined)
