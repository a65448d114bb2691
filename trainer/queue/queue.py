"""The queue of training jobs and tokenizer jobs: check a request, write it to disk, then enqueue it."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.deletion import create_with_texts
from trainer.artifacts.kinds import RUNS, TOKENIZERS
from trainer.artifacts.run_groups import create_runs, remove_runs, write_members
from trainer.artifacts.run_ids import Named, id_of_resumed, new_run_id
from trainer.artifacts.runs import Origin, RunDirectory, unpause_run
from trainer.artifacts.tokenizers import resolve_tokenizer
from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.contracts.base import HttpOrigin, changed, job_owner, now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import Accepted, RunRecord, Setting, TrainRequest
from trainer.contracts.seeds import RunGroup
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerRecord, TokenizerTrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.cost import needs_of
from trainer.queue.enqueue import Enqueuer, publish_events
from trainer.queue.folder_jobs import FolderJobs, unwritten
from trainer.queue.inference_client import InferenceClient
from trainer.queue.resolve import TrainingPreview, preview_training, resolve_origin, with_epochs
from trainer.queue.run_states import RunStates
from trainer.queue.stores import Stores
from trainer.queue.workers import Workers
from trainer.store import keys
from trainer.store.connection import require_redis, tolerate_no_redis
from trainer.store.store import Store, connect


class JobQueue:
    """Queue of one installation with its jobs, the states of its runs, its workers, and the client for inference."""

    def __init__(self, settings: Settings, store: Store, stores: Stores | None = None) -> None:
        self.settings = settings
        self._store = store
        self._enqueuer = Enqueuer(settings, store)
        self.stores = Stores(settings) if stores is None else stores
        self.replication = self.stores.replication
        self.runs = self.stores.runs
        self.corpora = self.stores.corpora
        self.tokenizers = self.stores.tokenizers
        self.workers = Workers(settings, store, self.runs)
        self.experiments = self.stores.experiments
        self.batteries = self.stores.batteries
        self.jobs = FolderJobs(settings, store, self._enqueuer, self.stores)
        self.inference = InferenceClient(settings, store, self._enqueuer, self.stores)
        self.states = RunStates(settings, store, self.stores, self.workers)

    @classmethod
    async def connect(cls, settings: Settings, redis_url: str, stores: Stores | None = None) -> "JobQueue":
        """Connect to Redis and join the object store; raises SERVICE_UNAVAILABLE if one does not answer."""
        queue = cls(settings, await connect(redis_url), stores)
        await queue.replication.join()
        return queue

    async def close(self) -> None:
        await self._store.close()

    async def train(
        self,
        request: TrainRequest,
        *,
        user_id: int | None,
        http: HttpOrigin | None = None,
        corpora: CorpusStore | None = None,
        named: Iterable[Named] = (),
        requested_paths: tuple[str, ...] | None = None,
        unused_settings: Mapping[str, Setting] = MappingProxyType({}),
    ) -> Accepted:
        """Check, estimate and accept a training (see `preview_training`); raises AppError, having changed nothing."""
        preview = await preview_training(
            request,
            corpora or self.corpora,
            self.settings,
            named=named,
            requested_paths=requested_paths,
            unused_settings=unused_settings,
        )
        return await self.accept(preview, user_id=user_id, http=http)

    async def accept(
        self,
        preview: TrainingPreview,
        *,
        user_id: int | None,
        http: HttpOrigin | None = None,
        experiment_id: str | None = None,
        study: tuple[str, str] | None = None,
        group: RunGroup | None = None,
    ) -> Accepted:
        """Accept a previewed training: write its run, or a run for each of its seeds, to disk, then enqueue it.

        A request with `resume` resumes the newest run with the same request; raises RUN_NOT_READY while that run has
        not ended. `group` is that of an experiment's or a study's run. `study` has the ids of the study and of its
        run.
        """
        request, effective = preview.request, preview.effective
        await self.workers.check(needs_of(preview.effective, preview.cost))
        await preview.corpora.store_offered(job_owner(user_id, http))
        if request.resume:
            run = await asyncio.to_thread(self._find_interrupted, preview, job_owner(user_id, http))
            if run is not None and run.pause_requested():
                return await self._unpause(run)
            if run is not None:
                origin = await self._origin(run)
                return await self.accept_resumed(origin, user_id=user_id, http=http, experiment_id=experiment_id)
        created_at = now()
        run_id = new_run_id(request.model_family, created_at)
        if len(preview.seeds) > 1:
            group = RunGroup(group_id=run_id, seeds=preview.seeds)
            run_id = group.member_id(request.seed)
        study_id, run_id = (None, run_id) if study is None else study
        record = RunRecord(
            run_id=run_id,
            user_id=user_id,
            http=http,
            created_at=created_at,
            request=request,
            effective=effective,
            request_hash=request_hash(effective),
            requested_paths=preview.requested_paths,
            unused_settings=dict(preview.unused_settings),
            cost=preview.cost,
            chosen=preview.chosen,
            leaks=preview.leaks,
            notes=preview.notes,
            experiment_id=experiment_id,
            study_id=study_id,
            group=group,
            pace=preview.pace,
        )
        return await self._accept(record)

    async def resume(
        self, run_id: str, *, user_id: int | None, http: HttpOrigin | None = None, epochs: int | None = None
    ) -> Accepted:
        """Resume a paused run, or a failed or cancelled one as a new run, with other epochs if they are given.

        Raises AppError, having changed nothing.
        """
        run = self.runs.get(run_id)
        if not run.pause_requested():
            origin = await self._origin(run)
            return await self.accept_resumed(origin, user_id=user_id, http=http, epochs=epochs)
        if epochs is not None:
            message = f"The run '{run_id}' is paused: resume it without `epochs`, or cancel it first."
            raise AppError(ErrorCode.RUN_NOT_READY, message)
        return await self._unpause(run)

    async def accept_resumed(
        self,
        origin: Origin,
        *,
        user_id: int | None,
        http: HttpOrigin | None = None,
        experiment_id: str | None = None,
        epochs: int | None = None,
    ) -> Accepted:
        """Accept a run that resumes a checked origin: write it to disk, then enqueue it."""
        created_at, old = now(), with_epochs(await asyncio.to_thread(origin.run.record), origin, epochs)
        if epochs is not None:  # no other run of its group has as many
            old = changed(old, group=None)
        record = changed(
            old,
            run_id=id_of_resumed(old, created_at),
            user_id=user_id,
            http=http,
            created_at=created_at,
            resumed_from_run_id=old.run_id,
            cost=None,
            experiment_id=experiment_id,
            study_id=None,
        )
        return await self._accept(record, origin)

    def _find_interrupted(self, preview: TrainingPreview, owner: int | str | None) -> RunDirectory | None:
        """Return the newest run of this owner, label and request; None if it completed or has no whole checkpoint.

        The label may have a number after it, as a default label has.
        """
        label = re.compile(re.escape(preview.effective.label or "") + "(-[0-9]+)?")
        for run in self.runs.all():
            record = run.record()
            is_named = label.fullmatch(record.effective.label or "") is not None
            if is_named and record.owner == owner and preview.is_of(record):
                end = run.manifest()
                if end is not None and (end.status == "completed" or newest_whole(run.checkpoints) is None):
                    return None
                return run
        return None

    async def _origin(self, run: RunDirectory) -> Origin:
        await self.replication.fetch("models", run.run_id, with_weights=True)
        return await resolve_origin(run, self.corpora, self.settings)

    async def _accept(self, record: RunRecord, origin: Origin | None = None) -> Accepted:
        await self.replication.store_corpora(self.corpora, record.effective.corpora)
        try:
            create = partial(create_runs, self.runs, record, origin)
            runs: Sequence[RunDirectory] = await asyncio.to_thread(create_with_texts, self.corpora, create)
        except OSError as error:
            raise unwritten("run", error) from error
        try:
            return await self._enqueue_all(runs)
        except AppError:  # the object store does not answer
            await asyncio.to_thread(remove_runs, self.runs, await asyncio.to_thread(runs[0].record))
            raise

    async def accepted_before(self, run: RunDirectory) -> Accepted:
        """Return the answer to the request that started a run; complete a group whose acceptance was interrupted."""
        accepted = Accepted.of(await asyncio.to_thread(run.record))
        await self.complete_group(self.runs.directory(accepted.run_id))
        return accepted

    async def complete_group(self, first: RunDirectory) -> None:
        """Write and enqueue what is missing of the group of a run, if its acceptance was interrupted."""
        if first.has_open_group():
            runs: list[RunDirectory] = await asyncio.to_thread(write_members, self.runs, first)
            await self._enqueue_all(runs)

    async def _enqueue_all(self, runs: Sequence[RunDirectory]) -> Accepted:
        for run in runs:
            await self.replication.publish("models", run.run_id)
        for run in runs:
            await self._enqueue(run, "run_accepted_without_redis")
        return Accepted.of(await asyncio.to_thread(runs[0].record))

    async def _enqueue(self, run: RunDirectory, without_redis: str) -> None:
        """Enqueue a run; without Redis, log `without_redis`: the reconciler of a worker enqueues it from the disk."""
        record: RunRecord = await asyncio.to_thread(run.record)
        async with tolerate_no_redis(without_redis, run_id=run.run_id):
            await publish_events(self._store, run)
            await self._enqueuer.enqueue_job(RUNS, run.run_id, record)

    async def _unpause(self, run: RunDirectory) -> Accepted:
        await self.replication.write("models", run.run_id, lambda: asyncio.to_thread(unpause_run, run))
        await self._enqueue(run, "run_unpaused_without_redis")
        return Accepted(run_id=run.run_id, job_id=run.run_id, status="queued")

    async def train_tokenizer(self, request: TokenizerTrainRequest) -> TokenizerAccepted:
        """Check and accept the training of a tokenizer; raises AppError, having changed nothing."""
        return await self.accept_tokenizer(await resolve_tokenizer(request, self.corpora))

    async def accept_tokenizer(self, record: TokenizerRecord) -> TokenizerAccepted:
        """Accept a checked tokenizer; one that is finished or being trained is not trained again."""
        tokenizer = await self.jobs.accept(TOKENIZERS, lambda: self.tokenizers.create(record))
        status = tokenizer.status()
        return TokenizerAccepted(tokenizer_id=status.tokenizer_id, job_id=status.tokenizer_id, status=status.status)

    async def first_value(self, idempotency: str, value: str) -> str:
        """Return the first value that was given for an Idempotency-Key; raises SERVICE_UNAVAILABLE without Redis."""
        key = keys.idempotency(idempotency)
        async with require_redis():
            await self._store.put_new(key, value, ttl_seconds=self.settings.queue.result_ttl_seconds)
            stored = await self._store.get(key)
        return value if stored is None else stored.decode()
