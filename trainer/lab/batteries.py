"""Work on batteries: start one."""

import asyncio

from trainer.artifacts.kinds import BATTERIES
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryRecord, BatteryRequest, BatteryStatus
from trainer.contracts.parameters import NoQuery, WaitQuery
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import check_first, own_id
from trainer.queue.batteries import Items, resolve_battery


async def start_battery(lab: Lab, asked: Asked[NoQuery, WaitQuery, BatteryRequest]) -> BatteryStatus:
    """Score batteries by runs; an equal request of the same person names the same job."""
    names: dict[str, None] = {}
    for given in asked.body.runs:
        name = await lab.run_name(asked.caller, given, or_checkpoint=True)
        await lab.run(asked.caller, name)
        names[name] = None
    rights, body = lab.rights, changed(asked.body, runs=tuple(names))
    await rights.check_listed_words(asked.caller, body.development, *names)
    if await rights.is_without_counts(asked.caller, names, body):
        body = changed(body, has_counts=False)
    record, items = await resolve_battery(
        body, lab.stores, lab.settings, user_id=asked.caller.discord_id, http=asked.origin
    )
    record = changed(record, battery_id=await own_id(lab, asked.caller, lab.stores.batteries, record.battery_id))
    await check_first(lab, asked, record.battery_id)
    return await accept_battery(lab, record, items)


async def accept_battery(lab: Lab, record: BatteryRecord, items: Items) -> BatteryStatus:
    """Accept a checked job; an equal one that has completed answers without the queue."""
    job = lab.stores.batteries.find(record.battery_id)
    if job is None or not job.has_completed() or job.is_outdated(record):
        job = await (await lab.live()).jobs.accept(BATTERIES, lambda: lab.stores.batteries.create(record, items))
    return await asyncio.to_thread(job.status)
