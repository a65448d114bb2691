"""Jobs of any kind but runs, accepted: written to disk, stored for the other machines, then enqueued."""

import asyncio
from collections.abc import Callable, Iterable

from trainer.artifacts.job_folder import FolderT
from trainer.artifacts.kinds import JobKind
from trainer.artifacts.replication import Replication
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef
from trainer.data.corpora import CorpusStore
from trainer.queue.enqueue import Enqueuer
from trainer.store.connection import tolerate_no_redis


class FolderJobs:
    """Accepts checked jobs of any kind but runs, of which one request may start several."""

    def __init__(self, settings: Settings, enqueuer: Enqueuer, corpora: CorpusStore, replication: Replication) -> None:
        self._root = settings.app.artifacts_root
        self._enqueuer = enqueuer
        self._corpora = corpora
        self._replication = replication

    async def accept(
        self, kind: JobKind[FolderT], create: Callable[[], FolderT], corpora: Iterable[CorpusRef]
    ) -> FolderT:
        """Accept a checked job: write it and its corpora to disk, then enqueue it unless it has ended.

        Without Redis, the reconciler of a worker enqueues it from the disk.
        """
        await self._corpora.store_offered()
        try:
            job = await asyncio.to_thread(create)
        except OSError as error:
            raise unwritten(kind.store(self._root).folder_type.word, error) from error
        if job.is_unfinished():
            await self._replication.store_corpora(self._corpora, corpora)
            await self._replication.publish(kind.name, job.job_id)
            async with tolerate_no_redis(f"{job.word}_accepted_without_redis", names=job.job_id):
                await self._enqueuer.enqueue_job(kind, job.job_id, job.record())
        return job


def unwritten(word: str, error: OSError) -> AppError:
    """Return the refusal of a job whose folder could not be written."""
    message = f"The {word} could not be written to disk ({error.strerror}); nothing was queued."
    return AppError(ErrorCode.INSUFFICIENT_STORAGE, message)
