"""Work on batteries: start, list, follow, cancel. Their results are artifacts."""

from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryList, BatteryRequest, BatteryStatus
from trainer.contracts.parameters import BatteryPath, NoBody, NoQuery, WaitQuery
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import at_end, cancelled, check_first


async def list_batteries(lab: Lab, asked: Asked[NoQuery, NoQuery, NoBody]) -> BatteryList:
    """List the batteries that the client may see, newest first, without their files."""
    permissions, caller = lab.permissions, asked.caller
    found = await lab.queue.batteries.all(lambda record: permissions.may_see(caller, record))
    return BatteryList(batteries=tuple(found))


async def start_battery(lab: Lab, asked: Asked[NoQuery, WaitQuery, BatteryRequest]) -> BatteryStatus:
    """Score batteries by runs; an equal request names the same job."""
    names: dict[str, None] = {}
    for given in asked.body.runs:
        name = await lab.run_name(asked.caller, given, or_checkpoint=True)
        await lab.run(asked.caller, name)
        names[name] = None
    batteries, body = lab.queue.batteries, changed(asked.body, runs=tuple(names))
    record, items = await batteries.resolve(body, user_id=asked.caller.discord_id, http=asked.origin)
    await check_first(lab, asked, record.battery_id)
    return await batteries.accept(record, items)


async def get_battery(lab: Lab, asked: Asked[BatteryPath, WaitQuery, NoBody]) -> BatteryStatus:
    """Read the status of a battery; with `wait`, after its end or after this time."""
    return await at_end(lambda: lab.queue.batteries.status(asked.path.battery_id), asked.query.wait)


async def cancel_battery(lab: Lab, asked: Asked[BatteryPath, NoQuery, NoBody]) -> BatteryStatus:
    """Cancel a battery; its scores stay. Only the one who has started it and admins may do this."""
    batteries, battery_id = lab.queue.batteries, asked.path.battery_id
    return await cancelled(asked, lambda: batteries.cancel(battery_id), lambda: batteries.status(battery_id))
