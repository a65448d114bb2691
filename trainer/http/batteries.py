"""Operations on batteries: start, list, follow, cancel. Their results are artifacts."""

import asyncio
from collections.abc import Sequence

from aiohttp import web

from trainer.artifacts.batteries import BatteryDirectory
from trainer.contracts.base import GivenName, changed
from trainer.contracts.batteries import BatteryList, BatteryRequest, BatteryStatus
from trainer.http.operations import (
    RUN,
    ApiRequest,
    BodyT,
    Link,
    NoBody,
    NoQuery,
    Operation,
    PathT,
    Query,
    QueryT,
    ResponseSpec,
    WaitQuery,
    job_answers,
    operation,
    reply,
)
from trainer.http.waiting import check_first, reply_accepted, reply_at_end, reply_cancelled


class BatteryPath(Query):
    battery_id: GivenName


async def list_batteries(call: ApiRequest[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """List the batteries that the client may see, newest first, without their files."""
    permissions, caller = call.api.permissions, call.client.caller
    found = await call.api.queue.batteries.all(lambda record: permissions.may_see(caller, record))
    return reply(BatteryList(batteries=tuple(found)))


async def start_battery(call: ApiRequest[NoQuery, WaitQuery, BatteryRequest]) -> web.StreamResponse:
    """Score batteries by runs; an equal request names the same job."""
    batteries = call.api.queue.batteries
    names: dict[str, None] = {}
    for name in call.body.runs:
        names[await call.api.run_name(call.client, name, or_checkpoint=True)] = None
    await _check_runs(call, [*names])
    with call.api.limits.request(call.client.caller):
        body = changed(call.body, runs=tuple(names))
        record, items = await batteries.resolve(body, user_id=call.client.user_id, http=call.origin)
        await check_first(call, record.battery_id)
        accepted = await batteries.accept(record, items)
    address = f"/batteries/{record.battery_id}"
    return await reply_accepted(call, accepted, address, lambda: batteries.status(record.battery_id))


async def get_battery(call: ApiRequest[BatteryPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the status of a battery; with `wait`, after its end or after this time."""
    battery = await seen_battery(call, call.path.battery_id)
    return await reply_at_end(call, lambda: call.api.queue.batteries.status(battery.battery_id))


async def cancel_battery(call: ApiRequest[BatteryPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Cancel a battery; its scores stay. Only the one who has started it and admins may do this."""
    battery = await seen_battery(call, call.path.battery_id, "battery cancel")
    batteries, battery_id = call.api.queue.batteries, battery.battery_id
    return await reply_cancelled(call, lambda: batteries.cancel(battery_id), lambda: batteries.status(battery_id))


async def seen_battery(
    call: ApiRequest[PathT, QueryT, BodyT], battery_id: str, command: str = "battery show"
) -> BatteryDirectory:
    """Return a battery; raises DATA_NOT_FOUND, and FORBIDDEN if the client may not run the bot's command on it."""
    battery = call.api.queue.batteries.stored.get(battery_id)
    record = await asyncio.to_thread(battery.record)
    call.api.permissions.check_battery(command, call.client.caller, record)
    return battery


async def _check_runs(call: ApiRequest[PathT, QueryT, BodyT], run_ids: Sequence[str]) -> None:
    for run_id in run_ids:
        await call.api.run(call.client, run_id, "battery start")


_ID = "$response.body#/battery_id"
_LINKS = (
    Link("get_battery", {"battery_id": _ID}),
    Link("cancel_battery", {"battery_id": _ID}),
)
_FILES = Link("list_files", {"kind": "batteries", "item_id": _ID})
OPERATIONS: tuple[Operation, ...] = (
    operation("GET /batteries", list_batteries, {200: ResponseSpec("The batteries", BatteryList)}, tag="batteries"),
    operation(
        "POST /batteries",
        start_battery,
        job_answers(BatteryStatus, BatteryStatus, _LINKS, _FILES),
        tag="batteries",
        example={
            "runs": [RUN],
            "files": [{"name": "pairs.csv", "content": "good,bad\nthe sun was shining,the sun were shining\n"}],
        },
    ),
    operation(
        "GET /batteries/{battery_id}",
        get_battery,
        {200: ResponseSpec("The status of the battery", BatteryStatus, (_FILES,))},
        tag="batteries",
    ),
    operation(
        "POST /batteries/{battery_id}/cancel",
        cancel_battery,
        {200: ResponseSpec("The status of the cancelled battery", BatteryStatus)},
        tag="batteries",
    ),
)
