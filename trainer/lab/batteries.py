"""Work on batteries: start, list, follow, cancel. Their results are artifacts."""

import asyncio

from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryList, BatteryRecord, BatteryRequest, BatteryStatus
from trainer.contracts.parameters import BatteryPath, NoBody, NoQuery, WaitQuery
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import at_end, cancelled, check_first
from trainer.queue.batteries import Items, resolve_battery


async def list_batteries(lab: Lab, asked: Asked[NoQuery, NoQuery, NoBody]) -> BatteryList:
    """List the batteries that the client may see, newest first, without their files."""
    permissions, caller = lab.permissions, asked.caller
    jobs = lab.stores.batteries
    found = await asyncio.to_thread(
        lambda: [job.status(has_files=False) for job in jobs.all() if permissions.may_see(caller, job.record())]
    )
    return BatteryList(batteries=tuple(found))


async def start_battery(lab: Lab, asked: Asked[NoQuery, WaitQuery, BatteryRequest]) -> BatteryStatus:
    """Score batteries by runs; an equal request names the same job."""
    names: dict[str, None] = {}
    for given in asked.body.runs:
        name = await lab.run_name(asked.caller, given, or_checkpoint=True)
        await lab.run(asked.caller, name)
        names[name] = None
    body = changed(asked.body, runs=tuple(names))
    record, items = await resolve_battery(
        body, lab.stores.runs, lab.settings, user_id=asked.caller.discord_id, http=asked.origin
    )
    await check_first(lab, asked, record.battery_id)
    return await accept_battery(lab, record, items)


async def accept_battery(lab: Lab, record: BatteryRecord, items: Items) -> BatteryStatus:
    """Accept a checked job; an equal one that has completed answers without the queue."""
    known = lab.stores.batteries.find(record.battery_id)
    if known is not None and known.has_completed() and not known.is_outdated(record):
        return await asyncio.to_thread(known.status)
    return await (await lab.live()).batteries.accept(record, items)


async def get_battery(lab: Lab, asked: Asked[BatteryPath, WaitQuery, NoBody]) -> BatteryStatus:
    """Read the status of a battery; with `wait`, after its end or after this time."""
    battery = lab.stores.batteries.get(asked.path.battery_id)
    return await at_end(lambda: asyncio.to_thread(battery.status), asked.query.wait)


async def cancel_battery(lab: Lab, asked: Asked[BatteryPath, NoQuery, NoBody]) -> BatteryStatus:
    """Cancel a battery; its scores stay. Only the one who has started it and admins may do this."""
    batteries, battery_id = (await lab.live()).batteries, asked.path.battery_id
    return await cancelled(asked, lambda: batteries.cancel(battery_id), lambda: batteries.status(battery_id))
