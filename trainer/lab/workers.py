"""Work on workers: list them, and pause the queue or drain a worker."""

from trainer.contracts.jobs import WorkerOrder, WorkersState
from trainer.contracts.parameters import NoBody, NoQuery
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller


async def list_workers(lab: Lab, asked: Asked[NoQuery, NoQuery, NoBody]) -> WorkersState:
    """List the workers of all machines, and which of the runs that the client may see each one trains."""
    return await _workers(lab, asked.caller)


async def order_workers(lab: Lab, asked: Asked[NoQuery, NoQuery, WorkerOrder]) -> WorkersState:
    """Pause or resume the start of runs, or let a worker take no further job; answers with the workers."""
    await (await lab.live(needs_server=True)).workers.order(asked.body.action, asked.body.name)
    return await _workers(lab, asked.caller)


async def _workers(lab: Lab, caller: Caller) -> WorkersState:
    return await (await lab.live(needs_server=True)).workers.state(await lab.unfinished_ids(caller))
