"""Restores Redis from disk: jobs that have not ended, and missing events of runs."""

import asyncio

import structlog

from trainer.artifacts.job_folder import in_order, skipping_unreadable
from trainer.artifacts.kinds import JOB_KINDS, RUNS
from trainer.artifacts.run_groups import complete_groups
from trainer.artifacts.runs import RunStore
from trainer.config.settings import Settings
from trainer.queue.enqueue import Enqueuer, publish_events
from trainer.store.events import ENDED_SECONDS
from trainer.store.store import Store
from trainer.system.files import folder_time
from trainer.system.hardware import is_dead

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


async def reconcile(settings: Settings, store: Store) -> None:
    """Enqueue unfinished jobs that the queue has lost, and publish missing events of runs.

    Jobs of a terminated worker of this machine are released at once. Incomplete run folders are deleted, and groups of
    which only some runs were written are completed.
    """
    await store.workers()  # deletes ended ones
    root = settings.app.artifacts_root
    runs = RunStore(root)
    await asyncio.to_thread(runs.clear_leftovers)
    await asyncio.to_thread(complete_groups, runs)
    unfinished = {kind: await asyncio.to_thread(kind.store(root).unfinished_ids) for kind in JOB_KINDS}
    holders = await store.holders([job_id for job_ids in unfinished.values() for job_id in job_ids])
    await store.release([job_id for job_id, holder in holders.items() if is_dead(holder)])
    enqueuer = Enqueuer(settings, store)
    for kind, job_ids in unfinished.items():
        jobs = kind.store(root)
        waiting = [job_id for job_id in job_ids if not jobs.directory(job_id).is_paused]
        if kind is RUNS and waiting:
            await enqueuer.rebuild_turns(runs)
        lost = await enqueuer.find_lost_jobs(kind, waiting)
        for job in await asyncio.to_thread(in_order, map(jobs.directory, lost)):
            with skipping_unreadable(job):
                if await enqueuer.requeue(kind, job, is_claimed=job.job_id in holders):
                    log.info(f"{job.word}_requeued", **job.log_id)
    since = await asyncio.to_thread(folder_time, root) - ENDED_SECONDS  # Redis has dropped earlier ones
    ended = await asyncio.to_thread(runs.finished, since)
    unpublished = await store.unpublished([*unfinished[RUNS], *(run.run_id for run in ended)])
    for run in await asyncio.to_thread(in_order, map(runs.directory, unpublished)):
        with skipping_unreadable(run):
            await publish_events(store, run)
