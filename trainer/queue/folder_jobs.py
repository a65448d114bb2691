"""Jobs of any kind but runs: accepted, cancelled and deleted on disk, in the object store and in Redis."""

import asyncio
from collections.abc import Callable

from trainer.artifacts.deletion import create_with_texts, delete_job
from trainer.artifacts.job_folder import FolderT
from trainer.artifacts.kinds import JobKind, StatusKind
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.queue.enqueue import Enqueuer
from trainer.queue.stores import Stores
from trainer.store.connection import tolerate_no_redis
from trainer.store.store import Store


class FolderJobs:
    """The jobs of one installation that have a folder and a status there: those of all kinds but runs."""

    def __init__(self, settings: Settings, store: Store, enqueuer: Enqueuer, stores: Stores) -> None:
        self._settings = settings
        self._root = settings.app.artifacts_root
        self._store = store
        self._enqueuer = enqueuer
        self._corpora = stores.corpora
        self._replication = stores.replication

    async def accept(self, kind: JobKind[FolderT], create: Callable[[], FolderT]) -> FolderT:
        """Accept a checked job: write it and its corpora to disk, then enqueue it unless it has ended.

        An equal one that has completed or is running stays as it is; one that has failed or was cancelled continues
        with what it has stored. Without Redis, the reconciler of a worker enqueues it from the disk. Raises
        DATA_NOT_FOUND if one of its corpora has just been deleted.
        """
        store = kind.store(self._root)
        await self._corpora.store_offered()
        try:
            for old in await asyncio.to_thread(store.remove_old):
                await self._replication.delete(kind.name, old)
            known = await asyncio.to_thread(store.ids)
            (job,) = await asyncio.to_thread(create_with_texts, self._corpora, lambda: (create(),), known)
        except OSError as error:
            raise unwritten(store.folder_type.word, error) from error
        if job.is_unfinished():
            await self._replication.store_corpora(self._corpora, job.needed_corpora())
            await self._replication.publish(kind.name, job.job_id)
            async with tolerate_no_redis(f"{job.word}_accepted_without_redis", names=job.job_id):
                await self._enqueuer.enqueue_job(kind, job.job_id, job.record())
        return job

    async def cancel(self, kind: StatusKind, job_id: str) -> None:
        """Cancel a job; what it has stored stays, and the same request continues with that.

        Raises CONFLICT for a job that has ended.
        """
        job = kind.store(self._root).get(job_id)
        is_idle = await asyncio.to_thread(job.cancel)
        await self._replication.request_cancel(kind.name, job_id)
        if is_idle and not self._replication.is_on:  # else a worker takes it, to end what it has started
            async with tolerate_no_redis(f"{job.word}_cancelled_without_redis", names=job_id):
                await self._store.dequeue(kind.queue(self._settings.queue), job_id)

    async def delete(self, kind: StatusKind, job_id: str) -> None:
        """Delete an ended job with its files; raises the errors of `delete_job`."""
        await self._replication.fetch(kind.name, job_id)
        await asyncio.to_thread(delete_job, kind, self._root, job_id)
        await self._replication.delete(kind.name, job_id)


def unwritten(word: str, error: OSError) -> AppError:
    """Return the refusal of a job whose folder could not be written."""
    message = f"The {word} could not be written to disk ({error.strerror}); nothing was queued."
    return AppError(ErrorCode.INSUFFICIENT_STORAGE, message)
