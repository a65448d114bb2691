"""Work on reading times: start an analysis."""

import asyncio

from trainer.artifacts.kinds import READINGS
from trainer.contracts.base import changed, run_of
from trainer.contracts.errors import ErrorCode, field_error
from trainer.contracts.parameters import NoQuery, WaitQuery
from trainer.contracts.readings import COUNTED, ReadingRequest, ReadingStatus
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller
from trainer.lab.waits import check_first, own_id
from trainer.queue.readings import kept_names, resolve_reading
from trainer.reading.request import check_sent


async def start_reading(lab: Lab, asked: Asked[NoQuery, WaitQuery, ReadingRequest]) -> ReadingStatus:
    """Explain reading times by the surprisals of runs; an equal request of the same person names the same job."""
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
    body = await _with_frequencies(lab, caller, changed(asked.body, runs=tuple(names)))
    if await lab.rights.is_without_counts(caller, names, body):
        body = _without_counts(body)
    record, times = await resolve_reading(body, lab.stores, user_id=caller.discord_id, http=asked.origin)
    record = changed(record, reading_id=await own_id(lab, caller, lab.stores.readings, record.reading_id))
    await check_first(lab, asked, record.reading_id)
    job = lab.stores.readings.find(record.reading_id)
    if job is None or not job.has_completed():
        job = await (await lab.live()).jobs.accept(READINGS, lambda: lab.stores.readings.create(record, times))
    return await asyncio.to_thread(job.status)


async def _with_frequencies(lab: Lab, caller: Caller, body: ReadingRequest) -> ReadingRequest:
    """Return a request with the id of the run in whose text is counted; raises FORBIDDEN for a text of others."""
    if body.frequencies is None:
        return body
    name = await lab.run_name(caller, body.frequencies)
    await lab.run(caller, name)
    if not await lab.rights.may_read_words(caller, name):
        message = "must be a run of yours: only the owner of a run and admins get counts of its training text"
        raise field_error(ErrorCode.FORBIDDEN, "frequencies", message)
    return changed(body, frequencies=name)


def _without_counts(body: ReadingRequest) -> ReadingRequest:
    """Return a request that leaves out the counts of its baseline; raises FORBIDDEN if it has named them.

    Those in the text of a run that it names for this stay.
    """
    if body.frequencies is not None:
        return changed(body, has_counts=False)
    counted = [name for name in body.baseline if name in COUNTED]
    if counted and "baseline" in body.model_fields_set:
        names = " and ".join(f"`{name}`" for name in counted)
        message = f"must be without {names}: only the owner of a run and admins get counts of its training text"
        raise field_error(ErrorCode.FORBIDDEN, "baseline", message)
    return changed(body, has_counts=False, baseline=tuple(name for name in body.baseline if name not in COUNTED))
