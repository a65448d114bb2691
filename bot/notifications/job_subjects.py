"""Jobs as subjects of notifications, one row per kind; all states are on disk."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from bot.messages.files import no_files
from bot.messages.job_cards import job_buttons, job_card
from bot.messages.report_card import attach_figures
from bot.notifications.group_subject import GroupSubject, find_groups
from bot.notifications.run_subject import RunSubject
from bot.notifications.subjects import HEARTBEAT_SECONDS, Message, Reading, Sources, State, Subject, View
from bot.people.user_settings import current_unit
from bot.people.watchers import HasLedger, Ledger, Watcher
from bot.processes.chart_process import ChartProcess
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.artifacts.job_folder import AnyStatusJob, FolderT, JobStore
from trainer.artifacts.kinds import STATUS_KINDS
from trainer.artifacts.runs import RunStore
from trainer.contracts.base import changed
from trainer.contracts.experiments import ExperimentResult
from trainer.contracts.job_status import JobStatus
from trainer.contracts.operations import JOB_ROWS, JobRow
from trainer.contracts.reports import Figure
from trainer.lab.jobs import with_wait
from trainer.system.files import read_record


class Watched(HasLedger, Protocol):
    """A job, or a group of runs."""

    job_id: str


class SubjectKind(NamedTuple):
    """A kind of job that can be watched."""

    find: Callable[[str], Subject | None]
    """Returns a subject by id; raises ValueError for a broken one."""
    jobs: Callable[[], Sequence[Watched]]


def subject_kinds(root: Path, sources: Sources) -> tuple[SubjectKind, ...]:
    """Return the kinds of jobs, in the order in which an id is looked for."""
    runs = RunStore(root)

    def group(group_id: str) -> Subject | None:
        return next((GroupSubject(one, sources) for one in find_groups(runs, group_id)), None)

    def job(row: JobRow, one: AnyStatusJob) -> Subject:
        return JobSubject(row, one, sources)

    return (
        _kind(runs, lambda one: RunSubject(one, sources)),
        *(_kind(kind.store(root), partial(job, JOB_ROWS[kind.name])) for kind in STATUS_KINDS.values()),
        SubjectKind(group, lambda: find_groups(runs)),
    )


def _kind(store: JobStore[FolderT], subject: Callable[[FolderT], Subject]) -> SubjectKind:
    def find(subject_id: str) -> Subject | None:
        job = store.find(subject_id)
        return None if job is None else subject(job)

    return SubjectKind(find, store.all)


async def job_message(
    row: JobRow, job: AnyStatusJob, status: JobStatus, charts: ChartProcess, *, may_delete: bool
) -> Message:
    """Return the card of a job with its buttons, of a completed one with its report, its pictures and its tables."""
    report = await asyncio.to_thread(job.report) if status.status == "completed" else None
    figures = () if report is None else report.figures()
    embed, pictures = job_card(row, status, report), await _pictures(job, figures, charts)
    buttons = job_buttons(row, status, report, may_delete=may_delete)
    return Message(embed, partial(attach_figures, embed, figures, pictures), buttons)


async def _pictures(job: AnyStatusJob, figures: Sequence[Figure], charts: ChartProcess) -> Mapping[str, bytes]:
    """Return the pictures of an experiment in the reader's unit, or the first one of another job."""
    if isinstance(job, ExperimentDirectory) and figures:
        result = await asyncio.to_thread(read_record, job.result, ExperimentResult)
        return await charts.experiment_figures(result, current_unit())
    for figure in figures:
        picture = job.path / f"{figure.name}.png"
        if picture.exists():
            return {figure.name: await asyncio.to_thread(picture.read_bytes)}
    return {}


class JobState(NamedTuple):
    status: JobStatus
    heartbeat: int = 0
    """Number of intervals of a running job whose card shows how long it takes."""

    @property
    def has_ended(self) -> bool:
        return self.status.has_ended


class JobSubject(Subject):
    """A job of any kind but runs."""

    def __init__(self, row: JobRow, job: AnyStatusJob, sources: Sources) -> None:
        self.id_name = row.id_field
        self._row = row
        self._job = job
        self._record = record = job.record()
        self._charts = sources.charts
        self._states = sources.feeds.states
        super().__init__(
            job.job_id,
            Ledger(job),
            lambda user_id: sources.can_receive(user_id, record),
            sources.interval_seconds,
            job.created_at(),
        )

    async def _read(self) -> Reading:
        """Read the status; the time that has passed would edit the card every time, so the state is without it."""
        status = await with_wait(self._states, self.subject_id, await asyncio.to_thread(self._job.status))
        elapsed: float | None = getattr(status, "elapsed_seconds", None)
        if elapsed is None:
            state = JobState(status)
        else:
            heartbeat = int(elapsed // HEARTBEAT_SECONDS) if status.status == "running" else 0
            state = JobState(changed(status, elapsed_seconds=0.0), heartbeat)
        return Reading(state, partial(self._draw, state, status))

    async def _draw(self, state: State, status: JobStatus) -> View:
        return View(state, partial(self._card, status), partial(self._final, status))

    def _card(self, status: JobStatus, user_id: int) -> Message:
        buttons = job_buttons(self._row, status, may_delete=self._is_owner(user_id))
        return Message(job_card(self._row, status), no_files, buttons)

    async def _final(self, status: JobStatus, watcher: Watcher) -> Message:
        may_delete = self._is_owner(watcher.user_id)
        return await job_message(self._row, self._job, status, self._charts, may_delete=may_delete)

    def _is_owner(self, user_id: int) -> bool:
        """Return whether a watcher has started the job, and may delete it."""
        return user_id == self._record.user_id
