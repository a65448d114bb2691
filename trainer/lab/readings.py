"""Work on reading times: start an analysis."""

import asyncio

from trainer.artifacts.kinds import READINGS
from trainer.contracts.base import changed, run_of
from trainer.contracts.parameters import NoQuery, WaitQuery
from trainer.contracts.readings import ReadingRequest, ReadingStatus
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import check_first
from trainer.queue.readings import kept_names, resolve_reading
from trainer.reading.request import check_sent


async def start_reading(lab: Lab, asked: Asked[NoQuery, WaitQuery, ReadingRequest]) -> ReadingStatus:
    """Explain reading times by the surprisals of runs; an equal request names the same job."""
    if asked.origin is not None:
        check_sent(asked.body)
    caller, names = asked.caller, dict[str, None]()
    for given in asked.body.runs:
        name = await lab.run_name(caller, given, or_group=True, or_checkpoint=True)
        if run_of(name) != name:
            await lab.run(caller, name)
            names[name] = None
            continue
        for one in await lab.manifests(caller, name):
            names[one.run_id] = None  # before its checkpoints: others are compared with the first
            if asked.body.has_checkpoints:
                kept: list[str] = await asyncio.to_thread(kept_names, lab.stores.runs, one.run_id)
                for checkpoint in kept:
                    names[checkpoint] = None
    body = changed(asked.body, runs=tuple(names))
    record, times = await resolve_reading(body, lab.stores, user_id=caller.discord_id, http=asked.origin)
    await check_first(lab, asked, record.reading_id)
    job = lab.stores.readings.find(record.reading_id)
    if job is None or not job.has_completed():
        job = await (await lab.live()).jobs.accept(READINGS, lambda: lab.stores.readings.create(record, times))
    return await asyncio.to_thread(job.status)
