"""Work on experiments: start, list, follow, cancel. Their files are artifacts."""

import asyncio

from trainer.artifacts.experiments import without_details
from trainer.contracts.experiments import ExperimentList, ExperimentRequest, ExperimentStatus
from trainer.contracts.parameters import ExperimentPath, NoBody, NoQuery, WaitQuery
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import at_end, cancelled, check_first
from trainer.queue.experiments import resolve_experiment


async def list_experiments(lab: Lab, asked: Asked[NoQuery, NoQuery, NoBody]) -> ExperimentList:
    """List all experiments, newest first, without their cells and files."""
    experiments, runs = lab.stores.experiments, lab.stores.runs
    statuses = await asyncio.to_thread(lambda: [one.status(runs, has_files=False) for one in experiments.all()])
    return ExperimentList(experiments=tuple(map(without_details, statuses)))


async def start_experiment(lab: Lab, asked: Asked[NoQuery, WaitQuery, ExperimentRequest]) -> ExperimentStatus:
    """Start an experiment; an equal request names the same experiment. Only admins may do this."""
    record, items = await resolve_experiment(
        asked.body, lab.stores.corpora, lab.settings, user_id=asked.caller.discord_id, http=asked.origin
    )
    await check_first(lab, asked, record.experiment_id)
    known = lab.stores.experiments.find(record.experiment_id)
    if known is not None and known.has_completed():
        return await asyncio.to_thread(known.status, lab.stores.runs)
    return await (await lab.live()).experiments.accept(record, items)


async def get_experiment(lab: Lab, asked: Asked[ExperimentPath, WaitQuery, NoBody]) -> ExperimentStatus:
    """Read the status of an experiment with its cells; with `wait`, after its end or after this time."""
    experiment = lab.stores.experiments.get(asked.path.experiment_id)
    return await at_end(lambda: asyncio.to_thread(experiment.status, lab.stores.runs), asked.query.wait)


async def cancel_experiment(lab: Lab, asked: Asked[ExperimentPath, NoQuery, NoBody]) -> ExperimentStatus:
    """Cancel an experiment with its unfinished runs; finished runs stay. Only admins may do this."""
    experiments, experiment_id = (await lab.live()).experiments, asked.path.experiment_id
    return await cancelled(asked, lambda: experiments.cancel(experiment_id), lambda: experiments.status(experiment_id))
