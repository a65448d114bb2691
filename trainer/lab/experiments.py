"""Work on experiments: start one."""

import asyncio

from trainer.artifacts.kinds import EXPERIMENTS
from trainer.contracts.experiments import ExperimentRequest, ExperimentStatus
from trainer.contracts.parameters import NoQuery, WaitQuery
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import check_first
from trainer.queue.experiments import resolve_experiment


async def start_experiment(lab: Lab, asked: Asked[NoQuery, WaitQuery, ExperimentRequest]) -> ExperimentStatus:
    """Start an experiment; an equal request names the same experiment. Only admins may do this."""
    record, items = await resolve_experiment(
        asked.body, lab.stores.corpora, lab.settings, user_id=asked.caller.discord_id, http=asked.origin
    )
    await check_first(lab, asked, record.experiment_id)
    job = lab.stores.experiments.find(record.experiment_id)
    if job is None or not job.has_completed():
        job = await (await lab.live()).jobs.accept(EXPERIMENTS, lambda: lab.stores.experiments.create(record, items))
    return await asyncio.to_thread(job.status)
