"""arq functions: each validates its payload, runs the job and records its end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import structlog
from arq import Retry

from trainer.artifacts.batteries import BatteryDirectory
from trainer.artifacts.command_jobs import ExportDirectory, VerificationDirectory
from trainer.artifacts.corpus_builds import BuildDirectory
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.artifacts.job_folder import AnyStatusJob, FolderT
from trainer.artifacts.kinds import (
    BATTERIES,
    BUILDS,
    EXPERIMENTS,
    EXPORTS,
    READINGS,
    RUNS,
    STUDIES,
    TOKENIZERS,
    VERIFICATIONS,
    JobKind,
)
from trainer.artifacts.readings import ReadingDirectory
from trainer.artifacts.replicas import WriterChanged
from trainer.artifacts.runs import RunDirectory, complete_end, pause_idle_run
from trainer.artifacts.studies import StudyDirectory
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.settings import Settings
from trainer.config.validation import parse
from trainer.contracts.base import KindName, run_of
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.jobs import FolderJobPayload
from trainer.contracts.runs import EffectiveRequest, RunModel
from trainer.queue.enqueue import publish_events
from trainer.queue.queue import JobQueue
from trainer.store import keys
from trainer.store.connection import STORE_ERRORS
from trainer.store.store import Store
from trainer.system.hardware import is_dead, process_name
from trainer.worker.battery import BatterySteps
from trainer.worker.commands import run_job_command
from trainer.worker.experiment import ExperimentSteps
from trainer.worker.reading import ReadingSteps
from trainer.worker.starts import Starts
from trainer.worker.steps import Steps, postponed
from trainer.worker.study import StudySteps
from trainer.worker.supervisor import supervise

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

StepsJobT = TypeVar("StepsJobT", bound=AnyStatusJob)


class JobFunction(Protocol):
    """Does a job; `ctx` is arq's context."""

    __qualname__: str

    async def __call__(self, ctx: dict[str, object], payload: object) -> None: ...


class Jobs:
    """Job functions with the clients and settings that they need."""

    def __init__(self, queue: JobQueue, settings: Settings, store: Store, starts: Starts | None = None) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue
        self._starts = starts or Starts(settings)
        self._runs = queue.runs
        self._replication = queue.replication

    def functions(self) -> dict[str, JobFunction]:
        """Return the function of each kind of job by its name in the queue."""
        return {
            RUNS.function: self._function(RUNS, self._train, self._publish_end),
            TOKENIZERS.function: self._function(TOKENIZERS, self._train_tokenizer),
            EXPERIMENTS.function: self._function(EXPERIMENTS, self._run_experiment),
            STUDIES.function: self._function(STUDIES, self._run_study),
            BATTERIES.function: self._function(BATTERIES, self._run_battery),
            READINGS.function: self._function(READINGS, self._explain_reading),
            EXPORTS.function: self._function(EXPORTS, self._export),
            VERIFICATIONS.function: self._function(VERIFICATIONS, self._verify),
            BUILDS.function: self._function(BUILDS, self._build_corpora),
        }

    def _function(
        self,
        kind: JobKind[FolderT],
        work: Callable[[FolderT], Awaitable[None]],
        after: Callable[[FolderT], Awaitable[None]] | None = None,
    ) -> JobFunction:
        """Return the function of a kind: it does the `work` of a job that has not ended, and what comes `after`."""
        jobs = kind.store(self._settings.app.artifacts_root)

        async def function(ctx: dict[str, object], payload: object) -> None:
            try:
                job_id = parse(FolderJobPayload, payload).job_id
                await self._fetch(kind.name, job_id)
                job = jobs.get(job_id)
            except AppError as error:
                log.error(f"{jobs.folder_type.word}_job_rejected", error_code=error.code, reason=error.message)
                return
            if job.has_work() or await self._replication.is_open(kind.name, job_id):
                await self._write(kind.name, job_id, lambda: work(job))
            if after is not None:
                await after(job)

        return function

    async def _publish_end(self, run: RunDirectory) -> None:
        if run.is_deleted():
            return  # as soon as it had ended
        try:
            await publish_events(self._store, run)
        except STORE_ERRORS as error:
            log.warning("event_publication_failed", run_id=run.run_id, error=type(error).__name__)
            raise Retry(defer=self._settings.queue.retry_seconds) from None

    async def _train(self, run: RunDirectory) -> None:
        """Train a run until it ends or is paused, with everything that it starts from on this machine's disk."""
        effective = run.record().effective
        if run.manifest() is None and not run.pause_requested() and self._replication.is_on:
            await self._replication.fetch_read_text(effective)
            await self._fetch_start(effective)
        if run.manifest() is None:
            await supervise(run, self._settings, self._store, self._starts)
        if run.is_deleted():
            return
        await asyncio.to_thread(pause_idle_run if run.pause_requested() else complete_end, run)
        manifest = run.manifest()
        if manifest is not None and manifest.tokenizer is not None:
            await self._replication.publish("tokenizers", manifest.tokenizer.id)

    async def _fetch_start(self, effective: EffectiveRequest) -> None:
        """Download the parent and the tokenizer that a run starts from."""
        if effective.parent_run_id is not None:
            await self._replication.fetch("models", effective.parent_run_id, with_weights=True)
        if effective.tokenizer_id is not None:
            await self._replication.fetch("tokenizers", effective.tokenizer_id)

    async def _fetch(self, kind: KindName, item_id: str) -> None:
        """Bring what a job names to its stored state; raises Retry while the object store does not answer."""
        try:
            await self._replication.fetch(kind, item_id)
        except AppError as error:  # SERVICE_UNAVAILABLE; `fetch` has no other
            raise await postponed(self._store, item_id, error, _STORE_RETRY_SECONDS) from None

    async def _write(self, kind: KindName, item_id: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work of a job that writes a folder; raises Retry while another machine writes it.

        Raises Retry too while the object store does not answer.
        """
        if self._replication.is_on and not await self._is_free(item_id):
            raise Retry(defer=_STORE_RETRY_SECONDS)
        try:
            await self._replication.write(kind, item_id, work)
        except WriterChanged:
            log.warning("writer_changed", names=item_id)
            raise Retry(defer=_STORE_RETRY_SECONDS) from None
        except AppError as error:
            if not self._replication.is_on or error.code is not ErrorCode.SERVICE_UNAVAILABLE:
                raise
            raise await postponed(self._store, item_id, error, _STORE_RETRY_SECONDS) from None

    async def _is_free(self, item_id: str) -> bool:
        """Return False if another living process has the lease of a run, tokenizer or experiment."""
        lease = await self._store.get(keys.lease(item_id))
        holder = process_name() if lease is None else lease.decode(errors="replace")
        return holder == process_name() or is_dead(holder)

    async def _train_tokenizer(self, tokenizer: TokenizerDirectory) -> None:
        if not tokenizer.is_unfinished():
            return  # only its end is to be stored
        await self._replication.fetch_corpora(tokenizer.record().corpora)
        await self._in_steps(tokenizer, lambda _, steps: steps.run_child("train-tokenizer"))

    async def _in_steps(self, job: StepsJobT, work: Callable[[StepsJobT, Steps], Awaitable[None]]) -> None:
        """Do a job until it ends; raises Retry as `Steps.run` does."""
        steps = Steps(job, self._queue, self._settings, self._store, self._starts)
        await steps.run(lambda: work(job, steps))

    async def _run_experiment(self, experiment: ExperimentDirectory) -> None:
        if not experiment.has_work():
            return  # only its end is to be stored
        if self._replication.is_on:
            await self._replication.fetch_corpora(experiment.record().all_corpora, by_name=True)
        await self._in_steps(experiment, lambda job, steps: ExperimentSteps(job, steps).run())

    async def _run_study(self, study: StudyDirectory) -> None:
        if not study.has_work():
            return  # only its end is to be stored
        await self._replication.fetch_corpora(study.needed_corpora(), by_name=True)
        await self._in_steps(study, lambda job, steps: StudySteps(job, steps).run())

    async def _run_battery(self, battery: BatteryDirectory) -> None:
        if not battery.has_work():
            return  # only its end is to be stored
        await self._fetch_scorers(battery.record().runs)
        await self._in_steps(battery, lambda job, steps: BatterySteps(job, steps).run())

    async def _explain_reading(self, reading: ReadingDirectory) -> None:
        if not reading.has_work():
            return  # only its end is to be stored
        await self._fetch_scorers(reading.record().runs)
        await self._in_steps(reading, lambda job, steps: ReadingSteps(job, steps).run())

    async def _fetch_scorers(self, models: Sequence[RunModel]) -> None:
        """Bring the runs that score something, and the texts that they were trained on, to this machine."""
        if self._replication.is_on:
            for model in models:
                await self._replication.fetch("models", model.run_id)
                await self._replication.fetch_read_text(self._runs.get(model.run_id).record().effective)

    async def _export(self, export: ExportDirectory) -> None:
        if export.is_unfinished():
            await self._replication.fetch("models", run_of(export.record().model), with_weights=True)
            await self._in_steps(export, run_job_command)

    async def _verify(self, verification: VerificationDirectory) -> None:
        """Verify a run with everything that it starts from on this machine's disk."""
        if not verification.is_unfinished():
            return
        run_id = verification.record().run_id
        await self._replication.fetch("models", run_id, with_weights=True)
        run = self._runs.find(run_id)
        if run is not None and self._replication.is_on:
            effective = run.record().effective
            await self._fetch_start(effective)
            await self._replication.fetch_corpora(effective.corpora, by_name=True)
        await self._in_steps(verification, run_job_command)

    async def _build_corpora(self, build: BuildDirectory) -> None:
        """Build corpora, and store them for the other machines."""
        if build.is_unfinished():
            await self._in_steps(build, run_job_command)
        await self._replication.store_corpora(self._queue.corpora, build.corpora())


_STORE_RETRY_SECONDS = 5.0
