"""Experiments, batteries and readings that are checked and accepted, as every face does it."""

from trainer.artifacts.batteries import BatteryDirectory
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.artifacts.kinds import BATTERIES, EXPERIMENTS, READINGS
from trainer.artifacts.readings import ReadingDirectory
from trainer.contracts.batteries import BatteryRequest
from trainer.contracts.experiments import ExperimentRequest
from trainer.contracts.readings import ReadingRequest
from trainer.queue.batteries import resolve_battery
from trainer.queue.experiments import resolve_experiment
from trainer.queue.queue import JobQueue
from trainer.queue.readings import resolve_reading


async def started_experiment(
    queue: JobQueue, request: ExperimentRequest, user_id: int | None = None
) -> ExperimentDirectory:
    record, items = await resolve_experiment(request, queue.corpora, queue.settings, user_id=user_id)
    return await queue.jobs.accept(EXPERIMENTS, lambda: queue.experiments.create(record, items))


async def started_battery(queue: JobQueue, request: BatteryRequest) -> BatteryDirectory:
    record, items = await resolve_battery(request, queue.stores, queue.settings)
    return await queue.jobs.accept(BATTERIES, lambda: queue.batteries.create(record, items))


async def started_reading(queue: JobQueue, request: ReadingRequest) -> ReadingDirectory:
    record, times = await resolve_reading(request, queue.stores)
    return await queue.jobs.accept(READINGS, lambda: queue.stores.readings.create(record, times))
