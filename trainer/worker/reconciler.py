"""Restores Redis from disk: jobs of unfinished runs, tokenizers and experiments, and missing events."""

import asyncio
import time

import structlog

from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.job_folder import in_order
from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.settings import Settings
from trainer.contracts.jobs import ExperimentPayload, TokenizerTrainPayload, TrainJobPayload
from trainer.queue.enqueue import Enqueuer, publish_events
from trainer.store.events import ENDED_SECONDS
from trainer.store.store import Store
from trainer.system.hardware import is_dead

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_WORKER_SECONDS = 3600.0
"""Time without a sign of a worker after which its published information is deleted."""


async def reconcile(settings: Settings, store: Store) -> None:
    """Enqueue unfinished runs, tokenizers and experiments whose job is lost, and publish missing events of runs.

    Jobs of a terminated worker of this machine are released at once. Incomplete run folders are deleted.
    """
    await store.workers(seconds=_WORKER_SECONDS)  # deletes earlier ones
    runs = RunStore(settings.app.artifacts_root)
    await asyncio.to_thread(runs.clear_leftovers)
    by_end = await asyncio.to_thread(runs.ids_by_end)
    unfinished = by_end[0]
    to_train = [run_id for run_id in unfinished if not runs.directory(run_id).is_paused]
    tokenizers = await asyncio.to_thread(TokenizerStore(settings.app.artifacts_root).unfinished)
    experiments = await asyncio.to_thread(ExperimentStore(settings.app.artifacts_root).unfinished)
    names = [*unfinished]
    names += [tokenizer.tokenizer_id for tokenizer in tokenizers]
    names += [experiment.experiment_id for experiment in experiments]
    holders = await store.holders(names)
    await store.release([name for name, holder in holders.items() if is_dead(holder)])
    enqueuer = Enqueuer(settings, store)
    if to_train:
        await enqueuer.restore_turns(runs)
    suspects = await enqueuer.suspect_runs(to_train)
    for run in await asyncio.to_thread(in_order, map(runs.directory, suspects)):
        if await enqueuer.restore(TrainJobPayload(run_id=run.run_id), run, is_claimed=run.run_id in holders):
            log.info("run_requeued", run_id=run.run_id)
    for tokenizer in tokenizers:
        payload = TokenizerTrainPayload(tokenizer_id=tokenizer.tokenizer_id)
        if await enqueuer.restore(payload, tokenizer):
            log.info("tokenizer_requeued", tokenizer_id=tokenizer.tokenizer_id)
    for experiment in experiments:
        if await enqueuer.restore(ExperimentPayload(experiment_id=experiment.experiment_id), experiment):
            log.info("experiment_requeued", experiment_id=experiment.experiment_id)
    ended = await asyncio.to_thread(runs.finished, time.time() - ENDED_SECONDS)  # Redis has dropped earlier ones
    unpublished = await store.unpublished([*unfinished, *(run.run_id for run in ended)])
    for run in await asyncio.to_thread(in_order, map(runs.directory, unpublished)):
        await publish_events(store, run)
