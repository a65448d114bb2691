"""Jobs as subjects of notifications, one row per kind; all states are on disk."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from bot.messages.battery_card import battery_buttons, battery_card
from bot.messages.buttons import button_row
from bot.messages.experiment_answers import experiment_buttons
from bot.messages.experiment_card import attach_figures, experiment_card
from bot.messages.job_cards import corpus_build_card, tokenizer_card
from bot.notifications.group_subject import GroupSubject, find_groups
from bot.notifications.run_subject import RunSubject
from bot.notifications.subjects import HEARTBEAT_SECONDS, RESULT, Message, Reading, State, Subject, View, no_files
from bot.people.user_settings import current_unit
from bot.people.watchers import GroupMessages, HasLedger, Ledger, OwnerWatch, Watcher
from bot.processes.chart_process import ChartProcess
from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.artifacts.corpus_builds import BuildStore
from trainer.artifacts.experiments import ExperimentDirectory, ExperimentStore
from trainer.artifacts.job_folder import AnyJob, FolderT, JobStore
from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryStatus
from trainer.contracts.corpora import BuildStatus
from trainer.contracts.experiments import ExperimentResult, ExperimentStatus
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.lab.permissions import Owned
from trainer.queue.run_feeds import RunFeeds
from trainer.system.files import read_record

CanReceive = Callable[[int, Owned], bool]


class _Status(Protocol):
    @property
    def has_ended(self) -> bool: ...


StatusT = TypeVar("StatusT", bound=_Status)


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

    return (
        _kind(runs, lambda one: RunSubject(one, charts, feeds, can_receive, interval_seconds=each, owner=owner)),
        _kind(ExperimentStore(root), lambda one: ExperimentSubject(one, charts, can_receive, each)),
        _kind(BatteryStore(root), lambda one: BatterySubject(one, can_receive, each)),
        _kind(BuildStore(root), lambda one: JobSubject(one, one.status, _build_message(one.job_id), each)),
        _kind(TokenizerStore(root), lambda one: JobSubject(one, one.status, _tokenizer_message, each)),
        SubjectKind(
            lambda name: next((group(one) for one in find_groups(runs, name)), None), lambda: find_groups(runs)
        ),
    )


def _kind(store: JobStore[FolderT], subject: Callable[[FolderT], Subject]) -> SubjectKind:
    def find(subject_id: str) -> Subject | None:
        job = store.find(subject_id)
        return None if job is None else subject(job)

    return SubjectKind(find, store.all)


def _build_message(build_id: str) -> Callable[[BuildStatus], Message]:
    return lambda status: Message(corpus_build_card(build_id, status), no_files, button_row())


def _tokenizer_message(status: TokenizerStatus) -> Message:
    return Message(tokenizer_card(status), no_files, button_row())


class JobState(NamedTuple, Generic[StatusT]):
    status: StatusT
    heartbeat: int = 0
    """Number of intervals since the job was requested, of a running job whose card shows how long it takes."""

    @property
    def has_ended(self) -> bool:
        return self.status.has_ended

    @property
    def line(self) -> str | None:
        return None


class JobSubject(Subject, Generic[StatusT]):
    """A job that everybody may see, and whose card shows its status."""

    def __init__(
        self,
        job: AnyJob,
        status: Callable[[], StatusT],
        card: Callable[[StatusT], Message],
        interval_seconds: float,
    ) -> None:
        super().__init__(job.job_id, Ledger(job), interval_seconds, job.created_at())
        self.id_name = f"{job.word}_id"
        self._status = status
        self._card = card

    def may_receive(self, user_id: int) -> bool:
        return True

    async def _read(self) -> Reading:
        status = await asyncio.to_thread(self._status)
        state = self._state(status)
        return Reading(state, partial(self._draw, state, status))

    def _state(self, status: StatusT) -> State:
        return JobState(status)

    async def _draw(self, state: State, status: StatusT) -> View:
        return View(state, lambda user_id: self._card(status))


class ExperimentView(View):
    def __init__(
        self, state: State, status: ExperimentStatus, experiment: ExperimentDirectory, charts: ChartProcess
    ) -> None:
        super().__init__(state, lambda user_id: _experiment_message(status))
        self._status = status
        self._experiment = experiment
        self._charts = charts

    async def final(self, watcher: Watcher) -> Message:
        """Return the final message: of a completed experiment its matrix, with the figures."""
        result: ExperimentResult | None = None
        if self._status.status == "completed":
            result = await asyncio.to_thread(read_record, self._experiment.result, ExperimentResult)
        embed = experiment_card(self._status, result)
        embed.set_footer(text=f"{self._experiment.experiment_id}{RESULT}")
        files = no_files
        if result is not None:
            figures = await self._charts.experiment_figures(result, current_unit())
            files = partial(attach_figures, embed, figures, result)
        return Message(embed, files, experiment_buttons(self._status))


class ExperimentSubject(JobSubject[ExperimentStatus]):
    def __init__(
        self,
        experiment: ExperimentDirectory,
        charts: ChartProcess,
        can_receive: CanReceive,
        interval_seconds: float,
    ) -> None:
        status = partial(experiment.status, has_files=False)
        self._charts = charts
        super().__init__(experiment, status, _experiment_message, interval_seconds)
        self._record = experiment.record()
        self._experiment = experiment
        self._can_receive = can_receive

    def may_receive(self, user_id: int) -> bool:
        return self._can_receive(user_id, self._record)

    def _state(self, status: ExperimentStatus) -> State:
        """Return the state without the time that has passed, which would edit the card every time."""
        heartbeat = int((status.elapsed_seconds or 0.0) // HEARTBEAT_SECONDS) if status.status == "running" else 0
        return JobState(changed(status, elapsed_seconds=None), heartbeat)

    async def _draw(self, state: State, status: ExperimentStatus) -> View:
        return ExperimentView(state, status, self._experiment, self._charts)


def _experiment_message(status: ExperimentStatus) -> Message:
    return Message(experiment_card(status), no_files, experiment_buttons(status))


class BatteryView(View):
    def __init__(self, state: State, status: BatteryStatus, battery: BatteryDirectory) -> None:
        super().__init__(state, lambda user_id: _battery_message(status))
        self._status = status
        self._battery = battery

    async def final(self, watcher: Watcher) -> Message:
        """Return the final message: of a completed battery its accuracies."""
        is_completed = self._status.status == "completed"
        summary = await asyncio.to_thread(self._battery.summary) if is_completed else None
        embed = battery_card(self._status, summary)
        embed.set_footer(text=f"{self._battery.battery_id}{RESULT}")
        return Message(embed, no_files, battery_buttons(self._status))


class BatterySubject(JobSubject[BatteryStatus]):
    def __init__(self, battery: BatteryDirectory, can_receive: CanReceive, interval_seconds: float) -> None:
        status = partial(battery.status, has_files=False)
        super().__init__(battery, status, _battery_message, interval_seconds)
        self._record = battery.record()
        self._battery = battery
        self._can_receive = can_receive

    def may_receive(self, user_id: int) -> bool:
        return self._can_receive(user_id, self._record)

    def _state(self, status: BatteryStatus) -> State:
        return JobState(changed(status, elapsed_seconds=0.0))

    async def _draw(self, state: State, status: BatteryStatus) -> View:
        return BatteryView(state, status, self._battery)


def _battery_message(status: BatteryStatus) -> Message:
    return Message(battery_card(status), no_files, battery_buttons(status))
