"""Jobs as subjects of notifications, one row per kind; all states are on disk."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import discord

from bot.messages.job_cards import job_buttons, job_card
from bot.messages.report_card import attach_figures
from bot.notifications.group_subject import GroupSubject, find_groups
from bot.notifications.run_subject import RunSubject
from bot.notifications.subjects import HEARTBEAT_SECONDS, RESULT, Message, Reading, State, Subject, View, no_files
from bot.people.user_settings import current_unit
from bot.people.watchers import GroupMessages, HasLedger, Ledger, OwnerWatch, Watcher
from bot.processes.chart_process import ChartProcess
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.artifacts.job_folder import AnyStatusJob, FolderT, JobStore
from trainer.artifacts.kinds import STATUS_KINDS
from trainer.artifacts.runs import RunStore
from trainer.contracts.base import changed
from trainer.contracts.experiments import ExperimentResult
from trainer.contracts.job_status import JobStatus
from trainer.contracts.operations import JOB_ROWS, JobRow
from trainer.contracts.reports import Report
from trainer.lab.permissions import Owned
from trainer.queue.run_feeds import RunFeeds
from trainer.system.files import read_record

CanReceive = Callable[[int, Owned], bool]


class Watched(HasLedger, Protocol):
    """A job, or a group of runs."""

    job_id: str


class SubjectKind(NamedTuple):
    """A kind of job that can be watched."""

    find: Callable[[str], Subject | None]
    """Returns a subject by id; raises ValueError for a broken one."""
    jobs: Callable[[], Sequence[Watched]]


def subject_kinds(
    root: Path,
    charts: ChartProcess,
    feeds: RunFeeds,
    can_receive: CanReceive,
    interval_seconds: float,
    owner: OwnerWatch | None = None,
) -> tuple[SubjectKind, ...]:
    """Return the kinds of jobs, in the order in which an id is looked for."""
    runs, each = RunStore(root), interval_seconds

    def group(messages: GroupMessages) -> Subject:
        return GroupSubject(messages, charts, feeds, can_receive, interval_seconds=each, owner=owner)

    def job(row: JobRow, one: AnyStatusJob) -> Subject:
        return JobSubject(row, one, charts, can_receive, each)

    return (
        _kind(runs, lambda one: RunSubject(one, charts, feeds, can_receive, interval_seconds=each, owner=owner)),
        *(_kind(kind.store(root), partial(job, JOB_ROWS[kind.name])) for kind in STATUS_KINDS.values()),
        SubjectKind(
            lambda name: next((group(one) for one in find_groups(runs, name)), None), lambda: find_groups(runs)
        ),
    )


def _kind(store: JobStore[FolderT], subject: Callable[[FolderT], Subject]) -> SubjectKind:
    def find(subject_id: str) -> Subject | None:
        job = store.find(subject_id)
        return None if job is None else subject(job)

    return SubjectKind(find, store.all)


async def report_of(job: AnyStatusJob, status: JobStatus) -> Report | None:
    """Return the report of a completed job; None for others, and for kinds that have none."""
    return await asyncio.to_thread(job.report) if status.status == "completed" else None


class JobResult(NamedTuple):
    """The card of a job, the files to send with it, and the report that a completed one has."""

    embed: discord.Embed
    files: Callable[[], list[discord.File]]
    report: Report | None


async def result_of(row: JobRow, job: AnyStatusJob, status: JobStatus, charts: ChartProcess) -> JobResult:
    """Return the card of a job, of a completed one with its report, and the files to send with it."""
    report = await report_of(job, status)
    embed = job_card(row, status, report)
    if report is None:
        return JobResult(embed, no_files, None)
    if isinstance(job, ExperimentDirectory):
        result = await asyncio.to_thread(read_record, job.result, ExperimentResult)
        pictures = await charts.experiment_figures(result, current_unit())
    else:
        pictures = await asyncio.to_thread(_first_picture, job, report)
    return JobResult(embed, partial(attach_figures, embed, pictures, report), report)


def _first_picture(job: AnyStatusJob, report: Report) -> Mapping[str, bytes]:
    """Return the first picture of a report that is stored, by the name of its figure."""
    paths = (job.path / f"{figure.name}.png" for figure in report.figures())
    return {path.stem: path.read_bytes() for path in islice(filter(Path.exists, paths), 1)}


class JobState(NamedTuple):
    status: JobStatus
    heartbeat: int = 0
    """Number of intervals of a running job whose card shows how long it takes."""

    @property
    def has_ended(self) -> bool:
        return self.status.has_ended


class JobView(View):
    def __init__(self, state: State, status: JobStatus, subject: "JobSubject") -> None:
        super().__init__(state, lambda user_id: subject.message(status, user_id, job_card(subject.row, status)))
        self._status = status
        self._subject = subject

    async def final(self, watcher: Watcher) -> Message:
        """Return the final message, of a completed job with its results."""
        embed, files, _ = await self._subject.result(self._status)
        embed.set_footer(text=f"{self._subject.subject_id}{RESULT}")
        return self._subject.message(self._status, watcher.user_id, embed, files)


class JobSubject(Subject):
    """A job of any kind but runs."""

    def __init__(
        self, row: JobRow, job: AnyStatusJob, charts: ChartProcess, can_receive: CanReceive, interval_seconds: float
    ) -> None:
        super().__init__(job.job_id, Ledger(job), interval_seconds, job.created_at())
        self.id_name = row.id_field
        self.row = row
        self._job = job
        self._record = job.record()
        self._charts = charts
        self._can_receive = can_receive

    def may_receive(self, user_id: int) -> bool:
        return self._can_receive(user_id, self._record)

    def message(
        self,
        status: JobStatus,
        user_id: int,
        embed: discord.Embed,
        files: Callable[[], list[discord.File]] = no_files,
    ) -> Message:
        """Return a message about the job for a watcher; its owner may delete it."""
        return Message(embed, files, job_buttons(self.row, status, may_delete=user_id == self._record.user_id))

    async def result(self, status: JobStatus) -> JobResult:
        return await result_of(self.row, self._job, status, self._charts)

    async def _read(self) -> Reading:
        """Read the status; the time that has passed would edit the card every time, so the state is without it."""
        status = await asyncio.to_thread(self._job.status)
        elapsed: float | None = getattr(status, "elapsed_seconds", None)
        if elapsed is None:
            state = JobState(status)
        else:
            heartbeat = int(elapsed // HEARTBEAT_SECONDS) if status.status == "running" else 0
            state = JobState(changed(status, elapsed_seconds=0.0), heartbeat)
        return Reading(state, partial(self._draw, state, status))

    async def _draw(self, state: State, status: JobStatus) -> View:
        return JobView(state, status, self)
