"""The status of a job of any kind but runs, and a page of a list of them."""

from typing import Self

from pydantic import TypeAdapter

from trainer.contracts.base import Frozen, RunState, Timestamp
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
