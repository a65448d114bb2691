"""The installation of this machine for one command: it reads the disk, and connects to Redis where that is needed."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import structlog
from pydantic import BaseModel

from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.checkpoints import named_model
from trainer.artifacts.job_folder import JOB_ID, REPORT_FILE, unreadable
from trainer.artifacts.kinds import KINDS_BY_NAME
from trainer.artifacts.replication import full_run_id
from trainer.artifacts.run_ids import Named, one_run_id
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.settings import Settings
from trainer.contracts.base import FileRecord, KindName, RunState, changed, narrowed, run_of
from trainer.contracts.corpora import CorpusOverview
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateChunk
from trainer.contracts.inference_fields import Asks, AsksForStream, ResponseT
from trainer.contracts.job_status import UnreadableJob
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.parameters import ArtifactPath, NoBody, RunPath, WaitQuery
from trainer.contracts.runs import EffectiveRequest, RunStatus
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.data.corpus_overview import corpus_overview
from trainer.data.line_keys import TextLines, lines_of_file
from trainer.data.tables import PlainText, as_text
from trainer.data.text import clean_corpus_name
from trainer.lab.artifacts import artifact
from trainer.lab.calls import CANCEL_RUN, GET_RUN, AnswerT, BodyT, Call, PathT, QueryT
from trainer.lab.lab import Lab
from trainer.lab.permissions import Caller, Permissions, no_member
from trainer.lab.waits import StatusT
from trainer.queue.run_feeds import RunFeeds
from trainer.queue.stores import Stores
from trainer.system.files import BrokenFile, is_full, read_record
from trainer.system.logs import LogReader

if TYPE_CHECKING:  # redis, which commands that only read do without
    from trainer.queue.queue import JobQueue
    from trainer.services.embedded import Services

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

RecordT = TypeVar("RecordT", bound=BaseModel)
WaitingT = TypeVar("WaitingT", RunStatus, TokenizerStatus)

OPERATOR = Caller(0, is_admin=True, is_counted=True)
"""Whoever has the files of an installation."""
_LOOK_SECONDS, _FETCH_SECONDS = 0.2, 1.0
"""Time between two looks at a job: on this disk, and in the object store."""
_KINDS: Mapping[str, KindName] = {
    "run_id": "models",
    "model": "models",
    **{row.id_field: row.kind for row in JOB_ROWS.values()},
}


class _States:
    """The states of the runs of a lab of one command."""

    def __init__(self, runs: RunStore, reached: "Callable[[], Awaitable[JobQueue | None]]") -> None:
        self.runs = runs
        self._reached = reached
        self._queue: JobQueue | None = None

    async def recent(self, statuses: Sequence[RunStatus]) -> list[RunStatus]:
        """Return statuses with the state of the queue; without one, no worker of a running run can be reached."""
        self._queue = await self._reached()
        if self._queue is None:
            return [changed(one, reachable=one.status != "running") for one in statuses]
        return await self._queue.states.recent(statuses)

    def steady(self, status: RunStatus) -> RunStatus:
        """Return a status that is `reachable` until the worker was silent for one lease."""
        return status if self._queue is None else self._queue.states.steady(status)

    async def wait_message(self, job_id: str) -> str | None:
        """Return why a queued job of any kind waits; None without a queue."""
        self._queue = await self._reached()
        return None if self._queue is None else await self._queue.states.wait_message(job_id)


class _CommandLab(Lab):
    """A lab that reads single runs in place of the index of all, and brings folders from the object store."""

    def __init__(self, settings: Settings, services: "Services | None") -> None:
        stores = Stores(settings)
        feeds = RunFeeds(_States(stores.runs, self.reached))
        super().__init__(settings, stores, feeds, Permissions(settings.discord, no_member))
        self.replication = stores.replication
        self.closing = AsyncExitStack()
        self._services = services
        self._connecting = asyncio.Lock()

    async def reached(self) -> "JobQueue | None":
        """Return the queue, connected to the Redis of the services or to one that runs; None without one."""
        async with self._connecting:
            if self._queue is None:
                from trainer.services.embedded import answering_server

                if self._services is not None:
                    self.closing.push_async_callback(self._services.stop)
                    url: str | None = await self._services.start()
                else:
                    url = await answering_server(self.settings)
                if url is None:
                    return None
                from trainer.queue.queue import JobQueue

                self._queue = await JobQueue.connect(self.settings, url, self.stores)
                self.closing.push_async_callback(self._queue.close)
                if self._services is not None:  # unless a bot of another version runs
                    publishing = self._queue.workers.version_published(replaces=False)
                    await self.closing.enter_async_context(publishing)
            return self._queue

    async def live(self, *, needs_server: bool = False) -> "JobQueue":
        queue = await self.reached()
        if queue is not None:
            return queue
        if needs_server:
            message = "Neither a worker nor its Redis server is running: start both with `mt worker`."
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message)
        from trainer.queue.queue import JobQueue
        from trainer.store.store import disconnected

        return JobQueue(self.settings, disconnected(), self.stores)

    async def named_runs(self, caller: Caller) -> list[Named]:
        return await asyncio.to_thread(self.stores.runs.named)

    async def unfinished_ids(self, caller: Caller) -> list[str]:
        return [run.run_id for run in await asyncio.to_thread(self.stores.runs.unfinished)]

    async def full_id(self, caller: Caller, field: str, given: str, *, or_checkpoint: bool = False) -> str:
        if field in _KINDS and JOB_ID.fullmatch(run_of(given)):
            await self.replication.fetch(_KINDS[field], run_of(given))
        return await super().full_id(caller, field, given, or_checkpoint=or_checkpoint)


class Here:
    """The installation of this machine, for its operator; with `services`, those start where a job needs them."""

    def __init__(self, settings: Settings, services: "Services | None" = None) -> None:
        self.settings = settings
        self.lab = _CommandLab(settings, services)
        self.runs = self.lab.stores.runs
        self.corpora = self.lab.stores.corpora
        self.unreadable: list[UnreadableJob] = []
        """The runs that `newest` has left out, because their records cannot be read."""
        self._services = services
        self._look_seconds = _FETCH_SECONDS if self.lab.replication.is_on else _LOOK_SECONDS

    @property
    def with_worker(self) -> "Services | None":
        """The services of this process once they have started a worker; None without one."""
        return self._services if self._services is not None and self._services.has_own_worker else None

    async def close(self) -> None:
        """Close the connections, and stop the services that this process has started."""
        await self.lab.feeds.stop()
        await self.lab.closing.aclose()

    async def call(
        self,
        call: Call[PathT, QueryT, BodyT, AnswerT],
        path: PathT | None = None,
        query: QueryT | None = None,
        body: BodyT | None = None,
    ) -> AnswerT:
        """Do an operation; raises AppError."""
        return await self.lab.call(call, OPERATOR, path, query, body)

    async def follow(self, call: Call[PathT, WaitQuery, NoBody, StatusT], path: PathT) -> AsyncGenerator[StatusT, None]:
        """Yield the status of a job until it has ended; its message says what a run waits for.

        An object store that does not answer any more may do so later.
        """
        status = await self.call(call, path)
        while True:
            yield narrowed(call.answer, await self._waiting(status))
            if status.has_ended:
                return
            await asyncio.sleep(self._look_seconds)
            with self._store_may_fail():
                status = await self.call(call, path)

    @contextmanager
    def _store_may_fail(self) -> Iterator[None]:
        try:
            yield
        except AppError as error:
            if error.code is not ErrorCode.SERVICE_UNAVAILABLE:
                raise
            log.warning("fetch_failed", error=str(error))

    async def _waiting(self, status: object) -> object:
        """Return the status of a job with what it waits for: runs before it, or room on a full disk."""
        if isinstance(status, TokenizerStatus) and not status.has_ended:
            return with_disk(self.folder("tokenizers", status.tokenizer_id), status)
        if not isinstance(status, RunStatus) or status.has_ended:
            return status
        if status.status == "queued" and (queue := await self.lab.reached()) is not None:
            status = await queue.states.with_wait(status)
        return with_disk(self.folder("models", status.run_id), status)

    async def newest(self, state: RunState | None = None) -> AsyncGenerator[RunStatus, None]:
        """Yield runs, newest first, without the state of the queue."""
        skipped: list[RunDirectory] = []
        for run in self.runs.newest(state, skipped):
            try:
                status = run.follow().refresh()
            except (OSError, BrokenFile):
                skipped.append(run)
                continue
            if state in (None, status.status):
                yield status
            self._note_unreadable(skipped)
        self._note_unreadable(skipped)

    def _note_unreadable(self, skipped: list[RunDirectory]) -> None:
        known = {one.job_id for one in self.unreadable}
        while skipped:
            found = unreadable(skipped.pop())
            if found is not None and found.job_id not in known:
                self.unreadable.append(found)

    async def cancel(self, run_id: str) -> RunStatus:
        """Request the end of a run and return its status; raises RUN_FINISHED for a run that has ended."""
        await self.call(CANCEL_RUN, RunPath(run_id=run_id))
        return await self.call(GET_RUN, RunPath(run_id=run_id))

    async def unfinished(self) -> list[RunStatus]:
        """List the runs that have not ended, with their places in the queue."""
        feeds = self.lab.feeds
        found = await feeds.statuses(await self.lab.unfinished_ids(OPERATOR))
        return [feeds.states.steady(one) for one in found if not one.has_ended]  # a run ends before its seal is written

    async def full_run_id(self, given: str, *, or_group: bool = False, or_checkpoint: bool = False) -> str:
        """Return the id that a name is meant for, as `one_run_id` does."""
        return await asyncio.to_thread(
            full_run_id, self.settings, given, or_group=or_group, or_checkpoint=or_checkpoint
        )

    async def run_finder(self) -> Callable[[str], Awaitable[str]]:
        """Return a function that knows no run if there is an object store: other machines may use its label too."""
        named = [] if self.lab.replication.is_on else await self.lab.named_runs(OPERATOR)

        async def find(given: str) -> str:
            return one_run_id(given, named, or_group=True)

        return find

    async def job_id(self, kind: KindName, given: str) -> str:
        """Return the id of the job that a name is meant for, as `one_job_id` does."""
        return await self.lab.full_id(OPERATOR, JOB_ROWS[kind].id_field, given)

    async def check_model(self, name: str) -> None:
        """Raise an error if a run has no model of this name: that of its end, or of a checkpoint."""
        await self.effective(name)

    async def effective(self, name: str) -> EffectiveRequest:
        """Return the resolved request that a model was trained with; raises an error if a run has no such model."""
        await self.lab.replication.fetch("models", run_of(name))
        return named_model(self.runs, name).effective

    async def check_text(self, name: str, path: Path) -> EffectiveRequest:
        """Return the request of a model that is to score a file; raises TEST_LOCKED for the text of a locked split."""
        effective, looks = await self.effective(name), self.lab.stores.looks
        text: TextLines = await asyncio.to_thread(lines_of_file, path)
        await asyncio.to_thread(looks.read_text, [(name, effective)], text, "evaluation", None)
        return effective

    async def saved_step(self, status: RunStatus) -> int | None:
        """Return the step that a failed or cancelled run would resume from."""
        saved = newest_whole(self.runs.get(status.run_id).checkpoints)
        return None if saved is None else saved.step

    async def log_lines(self, run_id: str, tail: int, *, follow: bool) -> AsyncGenerator[str, None]:
        """Yield the last lines of a run's log as stored, and with `follow` each new line until the run has ended."""
        await self.lab.replication.fetch("models", run_id)
        run = self.runs.get(run_id)
        reader, follower = LogReader(run.logs), run.follow()
        for line in reader.last(tail):
            yield line
        while follow and not follower.ended:
            follower.refresh()
            await asyncio.sleep(self._look_seconds)  # the last lines come just after the end
            with self._store_may_fail():
                await self.lab.replication.fetch("models", run_id)
            for line in reader.read_new():
                yield line

    async def add_corpus(
        self, path: Path, name: str, *, language: str | None = None, is_ipa: bool | None = None
    ) -> CorpusOverview:
        """Copy a file or a folder into the corpus folder; raises CONFLICT for the name of another corpus."""
        clean, corpora = clean_corpus_name(name), self.lab.stores.corpora
        if clean is None:
            raise AppError(ErrorCode.INVALID_INPUT, "`--name` must have a letter or a digit.")
        with TemporaryDirectory() as folder:
            text: PlainText = await asyncio.to_thread(as_text, path, Path(folder))
            await asyncio.to_thread(corpora.add, clean, text.path, language=language, is_ipa=is_ipa)
        overview: CorpusOverview = await asyncio.to_thread(corpus_overview, corpora, clean)
        return changed(overview, notes=(*overview.notes, *text.notes))

    async def read(self, kind: KindName, job_id: str, name: str, record: type[RecordT]) -> RecordT:
        """Read a record from a file of a completed job."""
        if name == REPORT_FILE:
            report = await asyncio.to_thread(self.lab.store(JOB_ROWS[kind]).get(job_id).report)
            return narrowed(record, report)
        return await asyncio.to_thread(read_record, self.folder(kind, job_id) / name, record)

    async def download(self, kind: KindName, job_id: str, folder: Path) -> Sequence[FileRecord]:
        """Copy the files of a completed job to a folder, and return their records; raises CONFLICT before the end."""
        source, files = await artifact(self.lab, OPERATOR, ArtifactPath(kind=kind, item_id=job_id))
        for file in files:
            copy = folder / file.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(shutil.copyfile, source / file.path, copy)
        return files

    def folder(self, kind: KindName, job_id: str) -> Path:
        """Return the folder of a job; raises the error for one that does not exist."""
        return KINDS_BY_NAME[kind].store(self.settings.app.artifacts_root).get(job_id).path

    async def ask(self, model: str, request: Asks[ResponseT], *, is_kept: bool = True) -> ResponseT:
        """Submit a request and wait for its result; `is_kept=False` deletes the stored result afterwards."""
        allowed = await self.lab.rights.allowed_inference(OPERATOR, model, request)
        return await (await self.lab.live()).inference.ask(model, allowed, is_kept=is_kept)

    async def stream(
        self, model: str, request: AsksForStream[ResponseT]
    ) -> AsyncGenerator[GenerateChunk | ResponseT, None]:
        """Yield chunks of the continuations, then the complete response."""
        async with aclosing((await self.lab.live()).inference.stream(model, request)) as chunks:
            async for chunk in chunks:
                yield chunk


def with_disk(folder: Path, status: WaitingT) -> WaitingT:
    """Return the status of a job with the state of its disk, which may be too full for events."""
    return changed(status, waits_for="disk_space", message=WAIT_MESSAGES["disk_space"]) if is_full(folder) else status
