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
    wait_message: str | None = None
    """Why a queued job waits, if it does not just wait for its turn: the object store's refusal, or broken workers."""

    @property
    def has_ended(self) -> bool:
        return self.status in FINAL_STATES


class UnreadableJob(Frozen):
    """A run or another job whose records cannot be read: it is listed, and its files stay as they are."""

    job_id: str
    reason: str
    """One sentence: which file, and why."""


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
    """Number of jobs on all pages, with those that cannot be read."""
    next_offset: int | None = None
    """The `offset` of the next page; None on the last one."""
    unreadable: tuple[UnreadableJob, ...] = ()
    """The jobs that this version of the program cannot read: all of them on the first page."""

    @property
    def jobs(self) -> tuple[JobStatus, ...]:
        """The statuses of this page."""
        fields: dict[str, object] = vars(self)
        return _statuses.validate_python(fields[self._field()])

    def with_next(self, following: Self) -> Self:
        """Return a page with the jobs of this one and of the following one."""
        joined: dict[str, object] = {self._field(): (*self.jobs, *following.jobs)}
        joined["unreadable"] = (*self.unreadable, *following.unreadable)
        return following.model_copy(update=joined)

    def _field(self) -> str:
        """Return the name of the field with the statuses, which the kind adds."""
        return next(name for name in [*type(self).model_fields] if name not in [*JobPage.model_fields])
