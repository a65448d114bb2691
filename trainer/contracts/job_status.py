"""The status of a job of any kind but runs, and a page of a list of them."""

from typing import Self

from pydantic import TypeAdapter

from trainer.contracts.base import Frozen, RunState, Timestamp
from trainer.contracts.errors import RunError
from trainer.contracts.runs import FINAL_STATES

_jobs: TypeAdapter[tuple[object, ...]] = TypeAdapter(tuple[object, ...])


class JobStatus(Frozen):
    """The status of a job; its kind adds the fields."""

    status: RunState
    created_at: Timestamp
    error: RunError | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in FINAL_STATES


class JobPage(Frozen):
    """A page of jobs, newest first; its kind adds the field with their statuses."""

    total: int
    """Number of jobs on all pages."""
    next_offset: int | None = None
    """The `offset` of the next page; None on the last one."""

    def with_next(self, following: Self) -> Self:
        """Return a page with the jobs of this one and of the following one."""
        jobs: dict[str, object] = self.model_dump()
        fields: dict[str, object] = following.model_dump()
        for name, more in fields.items():
            if more is not None and not isinstance(more, int):
                fields[name] = (*_jobs.validate_python(jobs[name]), *_jobs.validate_python(more))
        return type(self).model_validate(fields)
