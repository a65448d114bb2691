"""This machine's runs, tokenizers, experiments and batteries on disk, and the queue if its server is running."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, TypeVar

import structlog
from pydantic import BaseModel

from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.checkpoints import named_model
from trainer.artifacts.experiments import ExperimentDirectory, ExperimentStore, delete_run, without_details
from trainer.artifacts.job_folder import FolderT
from trainer.artifacts.kinds import KINDS_BY_NAME, RUNS, TOKENIZERS, JobKind, KindName
from trainer.artifacts.replication import Replication, complete_run
from trainer.artifacts.run_files import RunFiles, named_files
from trainer.artifacts.run_groups import runs_of_group
from trainer.artifacts.run_ids import Named, one_run_id
from trainer.artifacts.runs import RunDirectory, RunStore, cancel_idle_run
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.settings import Settings
from trainer.contracts.base import FileRecord, RunState, changed, run_of
from trainer.contracts.batteries import BatteryList, BatteryStatus
from trainer.contracts.corpora import CorpusList, CorpusOverview
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.experiments import ExperimentList, ExperimentStatus
from trainer.contracts.groups import GroupStatus, RunRows, group_status
from trainer.contracts.http_answers import JobKindName
from trainer.contracts.jobs import WorkerOrder, WorkersState
from trainer.contracts.runs import EffectiveRequest, RunManifest, RunStatus, finished_error
from trainer.contracts.tokenizer_jobs import TokenizerList, TokenizerStatus
from trainer.contracts.verification import Verification
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.data.corpora import CorpusStore
from trainer.data.corpus_overview import corpus_overview, corpus_overviews
from trainer.data.tables import PlainText, as_text
from trainer.data.text import clean_corpus_name
from trainer.system.files import is_full, read_record
from trainer.system.logs import LogReader

if TYPE_CHECKING:  # commands without the queue need not wait for the import of redis, or of the HTTP client
    from trainer.client.uploads import UploadProgress
    from trainer.queue.queue import JobQueue

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_FOLLOW_SECONDS, _FETCH_SECONDS = 0.2, 1.0
"""Time between two looks at a run: on this disk, and in the object store."""
_JOB_SECONDS = 0.5
"""Time between two looks at an experiment or a battery."""


StatusT = TypeVar("StatusT", RunStatus, TokenizerStatus)
JobStatusT = TypeVar("JobStatusT", ExperimentStatus, BatteryStatus)
RecordT = TypeVar("RecordT", bound=BaseModel)


@asynccontextmanager
async def connected(settings: Settings, url: str) -> AsyncIterator["JobQueue"]:
    """Connect to the queue of a server; raises SERVICE_UNAVAILABLE if it does not answer."""
    from trainer.queue.queue import JobQueue

    queue = await JobQueue.connect(settings, url)
    try:
        yield queue
    finally:
        await queue.close()


@asynccontextmanager
async def running_queue(settings: Settings) -> AsyncIterator["JobQueue | None"]:
    """Connect to the queue if its server is running; starts nothing."""
    from trainer.services.embedded import answering_server

    url = await answering_server(settings)
    if url is None:
        yield None
    else:
        async with connected(settings, url) as queue:
            yield queue


class ThisMachine:
    """Runs and tokenizers of the artifacts folder; starts nothing.

    With an object store, a method that gets an id brings its folder to the stored state first. Raises
    SERVICE_UNAVAILABLE if the store does not answer.
    """

    def __init__(self, settings: Settings, queue: "JobQueue | None" = None) -> None:
        self._settings = settings
        self._queue = queue
        self.jobs = StoredJobs(settings)
        self._runs = RunStore(settings.app.artifacts_root)
        self._replication = Replication(settings)

    async def runs(self, status: RunState | None, limit: int, *, by_group: bool = False) -> list[RunStatus]:
        rows = RunRows(limit, by_group=by_group)
        statuses = (run.follow().refresh() for run in self._runs.newest(status))
        for one in statuses:
            if status in (None, one.status) and not rows.take(one):
                break
        return rows.runs

    async def group(self, group_id: str) -> GroupStatus:
        runs: list[RunDirectory] = await asyncio.to_thread(runs_of_group, self._runs, group_id)
        return group_status(group_id, [await self.status(run.run_id) for run in runs])

    async def run_finder(self) -> Callable[[str], Awaitable[str]]:
        """Return a function that knows no run if there is an object store: other machines may use its label too."""
        named: list[Named] = [] if self._replication.is_on else await asyncio.to_thread(self._runs.named)

        async def find(given: str) -> str:
            return one_run_id(given, named, or_group=True)

        return find

    async def unfinished(self) -> list[RunStatus]:
        runs = await asyncio.to_thread(self._runs.unfinished)
        async with running_queue(self._settings) as queue:
            if queue is None:
                return [_stored_status(run) for run in runs]
            return [await queue.states.steady_status(run.follow().refresh()) for run in runs]

    async def status(self, run_id: str) -> RunStatus:
        """Return the status of a run; without a queue, no worker of a running run can be reached."""
        run = await self._folder(RUNS, run_id)
        if self._queue is not None:
            return await self._queue.states.status(run_id)
        async with running_queue(self._settings) as queue:
            return _stored_status(run) if queue is None else await queue.states.status(run_id)

    async def follow(self, run_id: str) -> AsyncGenerator[RunStatus, None]:
        """Yield the status on disk until the run has ended; its message says what a run waits for."""
        run = await self._folder(RUNS, run_id)
        follower = run.follow()
        while True:
            status = follower.refresh()
            if status.status == "queued" and self._queue is not None:
                status = await self._queue.states.with_wait(status)
            yield with_disk(run.path, status)
            if status.has_ended:
                return
            await self._wait(RUNS.name, run_id)

    async def saved_step(self, status: RunStatus) -> int | None:
        saved = newest_whole(self._runs.get(status.run_id).checkpoints)
        return None if saved is None else saved.step

    async def cancel(self, run_id: str) -> RunStatus:
        run = await self._folder(RUNS, run_id)
        async with running_queue(self._settings) as queue:
            if queue is not None:
                await queue.states.cancel(run_id)
                return await queue.states.status(run_id)
        if run.manifest() is not None:
            raise finished_error(run_id)
        run.request_cancel()
        await self._replication.request_cancel(RUNS.name, run_id)
        if not self._replication.is_on:
            cancel_idle_run(run)
        return _stored_status(run)

    async def delete(self, run_id: str) -> None:
        run = await self._folder(RUNS, run_id)
        async with running_queue(self._settings) as queue:
            if queue is not None:
                await queue.states.delete(run_id)
                return
        delete_run(run, self._runs, ExperimentStore(self._settings.app.artifacts_root))
        await self._replication.delete(RUNS.name, run_id)

    async def completed_manifest(self, run_id: str) -> RunManifest:
        return (await self._folder(RUNS, run_id)).completed_manifest()

    async def check_model(self, name: str) -> None:
        await self.effective(name)

    async def effective(self, name: str) -> EffectiveRequest:
        await self._folder(RUNS, run_of(name))
        return named_model(self._runs, name).effective

    async def experiment_file(self, run_id: str) -> str:
        from trainer.config.experiment_file import experiment_yaml  # loads the YAML parser

        return experiment_yaml((await self._folder(RUNS, run_id)).record())

    async def files(self, name: str) -> RunFiles:
        await self._folder(RUNS, run_of(name))
        return named_files(self._runs, name)

    async def evaluation(self, run_id: str) -> EvalMetrics:
        return (await self._folder(RUNS, run_id)).evaluation()

    async def log_lines(self, run_id: str, tail: int, *, follow: bool) -> AsyncGenerator[str, None]:
        run = await self._folder(RUNS, run_id)
        reader, follower = LogReader(run.logs), run.follow()
        for line in reader.last(tail):
            yield line
        while follow and not follower.ended:
            follower.refresh()
            await self._wait(RUNS.name, run_id)  # the last lines come just after the end
            for line in reader.read_new():
                yield line

    async def last_lines(self, run_id: str) -> tuple[str, ...]:
        manifest = (await self._folder(RUNS, run_id)).manifest()
        return () if manifest is None else manifest.last_lines

    async def verification(self, run_id: str) -> Verification:
        from trainer.export.verification import verify_run  # torch, for the model

        run = await asyncio.to_thread(complete_run, self._settings, run_id)
        return await asyncio.to_thread(verify_run, run, self._settings)

    async def workers(self, order: WorkerOrder | None = None) -> WorkersState:
        async with running_queue(self._settings) as queue:
            if queue is None:
                message = "Neither a worker nor its Redis server is running: start both with `mt worker`."
                raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message)
            if order is not None:
                await queue.workers.order(order.action, order.name)
            unfinished = await asyncio.to_thread(self._runs.unfinished)
            return await queue.workers.state([run.run_id for run in unfinished])

    async def corpora(self) -> CorpusList:
        corpora = CorpusStore(self._settings)
        return CorpusList(corpora=await asyncio.to_thread(corpus_overviews, corpora, corpora.names()))

    async def add_corpus(
        self,
        path: Path,
        name: str,
        *,
        language: str | None = None,
        is_ipa: bool | None = None,
        progress: "UploadProgress | None" = None,
    ) -> CorpusOverview:
        """Copy a file or a folder into the corpus folder; a copy on this machine shows no progress."""
        clean, corpora = clean_corpus_name(name), CorpusStore(self._settings)
        if clean is None:
            raise AppError(ErrorCode.INVALID_INPUT, "`--name` must have a letter or a digit.")
        with TemporaryDirectory() as folder:
            text: PlainText = await asyncio.to_thread(as_text, path, Path(folder))
            await asyncio.to_thread(corpora.add, clean, text.path, language=language, is_ipa=is_ipa)
        overview: CorpusOverview = await asyncio.to_thread(corpus_overview, corpora, clean)
        return changed(overview, notes=(*overview.notes, *text.notes))

    async def job_id(self, kind: JobKindName | Literal["tokenizers"], given: str) -> str:
        store = KINDS_BY_NAME[kind].store(self._settings.app.artifacts_root)
        return (await asyncio.to_thread(store.find_named, given)).job_id

    async def tokenizers(self) -> TokenizerList:
        stored = TokenizerStore(self._settings.app.artifacts_root).all()
        return TokenizerList(tokenizers=tuple(tokenizer.status() for tokenizer in stored))

    async def tokenizer(self, tokenizer_id: str) -> TokenizerStatus:
        return (await self._folder(TOKENIZERS, tokenizer_id)).status()

    async def follow_tokenizer(self, tokenizer_id: str) -> AsyncGenerator[TokenizerStatus, None]:
        """Yield the status until the training has ended, with the message that the disk is full while it is."""
        tokenizer = await self._folder(TOKENIZERS, tokenizer_id)
        while (status := tokenizer.status()).status in ("queued", "running"):
            yield with_disk(tokenizer.path, status)
            await self._wait(TOKENIZERS.name, tokenizer_id)
        yield status

    async def _folder(self, kind: JobKind[FolderT], item_id: str) -> FolderT:
        await self._replication.fetch(kind.name, item_id)
        return kind.store(self._settings.app.artifacts_root).get(item_id)

    async def _wait(self, kind: KindName, item_id: str) -> None:
        """Wait until the next look at a folder, and fetch it; a store that does not answer now may do so later."""
        await asyncio.sleep(_FETCH_SECONDS if self._replication.is_on else _FOLLOW_SECONDS)
        try:
            await self._replication.fetch(kind, item_id)
        except AppError as error:
            log.warning("fetch_failed", names=item_id, error=str(error))


class StoredJobs:
    """Experiments and batteries of the artifacts folder; starts nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runs = RunStore(settings.app.artifacts_root)
        self._experiments = ExperimentStore(settings.app.artifacts_root)
        self._batteries = BatteryStore(settings.app.artifacts_root)

    async def experiments(self) -> ExperimentList:
        statuses = [experiment.status(self._runs, has_files=False) for experiment in self._experiments.all()]
        return ExperimentList(experiments=tuple(map(without_details, statuses)))

    async def experiment(self, experiment_id: str) -> ExperimentStatus:
        return await asyncio.to_thread(self._experiments.get(experiment_id).status, self._runs)

    def follow_experiment(self, experiment_id: str) -> AsyncGenerator[ExperimentStatus, None]:
        return _until_end(lambda: self.experiment(experiment_id))

    async def cancel_experiment(self, experiment_id: str) -> ExperimentStatus:
        async with running_queue(self._settings) as queue:
            if queue is not None:
                return await queue.experiments.cancel(experiment_id)
        from trainer.queue.experiments import cancel_experiment  # redis

        cancel_experiment(self._experiments.get(experiment_id), self._runs)
        return await self.experiment(experiment_id)

    async def batteries(self) -> BatteryList:
        return BatteryList(batteries=tuple(one.status(has_files=False) for one in self._batteries.all()))

    async def battery(self, battery_id: str) -> BatteryStatus:
        battery = self._batteries.get(battery_id)
        return await asyncio.to_thread(lambda: battery.status(has_files=False))

    def follow_battery(self, battery_id: str) -> AsyncGenerator[BatteryStatus, None]:
        return _until_end(lambda: self.battery(battery_id))

    async def cancel_battery(self, battery_id: str) -> BatteryStatus:
        async with running_queue(self._settings) as queue:
            if queue is not None:
                return await queue.batteries.cancel(battery_id)
        from trainer.queue.batteries import cancel_battery  # redis

        cancel_battery(self._batteries.get(battery_id))
        return await self.battery(battery_id)

    async def read(self, kind: JobKindName, job_id: str, name: str, record: type[RecordT]) -> RecordT:
        return read_record(self._job(kind, job_id).path / name, record)

    async def export(self, kind: JobKindName, job_id: str, folder: Path) -> tuple[FileRecord, ...]:
        job = self._job(kind, job_id)
        files = job.result_files()
        for file in files:
            copy = folder / file.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(job.path / file.path, copy)
        return files

    def page(self, kind: JobKindName, job_id: str) -> Path | None:
        return self._job(kind, job_id).path / "report.html"

    def _job(self, kind: JobKindName, job_id: str) -> ExperimentDirectory | BatteryDirectory:
        return self._experiments.get(job_id) if kind == "experiments" else self._batteries.get(job_id)


async def _until_end(read: Callable[[], Awaitable[JobStatusT]]) -> AsyncGenerator[JobStatusT, None]:
    """Yield the status of a job until it has ended."""
    status = await read()
    yield status
    while not status.has_ended:
        await asyncio.sleep(_JOB_SECONDS)
        status = await read()
        yield status


def with_disk(folder: Path, status: StatusT) -> StatusT:
    """Return the status of a job with the state of its disk, which may be too full for events."""
    return changed(status, waits_for="disk_space", message=WAIT_MESSAGES["disk_space"]) if is_full(folder) else status


def _stored_status(run: RunDirectory) -> RunStatus:
    status = run.follow().refresh()
    return changed(status, reachable=status.status != "running")
