"""Operations on workers: list them, and pause the queue or drain a worker."""

from aiohttp import web

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.jobs import WorkerOrder, WorkersState
from trainer.http.api import Api, ApiClient
from trainer.http.operations import ApiRequest, NoBody, NoQuery, Operation, ResponseSpec, operation, reply


async def list_workers(call: ApiRequest[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """List the workers of all machines, and which of the runs that the client may see each one trains."""
    return reply(await _workers(call.api, call.client))


async def order_workers(call: ApiRequest[NoQuery, NoQuery, WorkerOrder]) -> web.StreamResponse:
    """Pause or resume the start of runs, or let a worker take no further job; answers with the workers."""
    if not call.client.is_admin:
        raise AppError(ErrorCode.FORBIDDEN, "Only admins may give orders to workers.")
    await call.api.queue.workers.order(call.body.action, call.body.name)
    return reply(await _workers(call.api, call.client))


async def _workers(api: Api, client: ApiClient) -> WorkersState:
    await api.index.refresh()
    seen = [run for run in api.index.runs if client.is_admin or api.permissions.can_run("status", client.caller, run)]
    return await api.queue.workers.state([run.run_id for run in seen if run.is_unfinished])


_ANSWERS = {200: ResponseSpec("The workers", WorkersState)}
OPERATIONS: tuple[Operation, ...] = (
    operation("GET /workers", list_workers, _ANSWERS, tag="service"),
    operation("POST /workers", order_workers, _ANSWERS, tag="service", example={"action": "resume"}),
)
