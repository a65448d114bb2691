"""Health, readiness and figures of the service, for the programs that watch over it."""

from typing import Literal

from aiohttp import web

from trainer.contracts.base import Frozen
from trainer.contracts.parameters import NoBody, NoQuery
from trainer.http.metrics import CONTENT_TYPE
from trainer.http.operations import ApiRequest
from trainer.http.waiting import reply


class Health(Frozen):
    status: Literal["ok"] = "ok"


class Readiness(Frozen):
    status: Literal["ready", "degraded"]
    reason: Literal["redis-unavailable", "no-worker"] | None = None


async def get_health(call: ApiRequest[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """Answer while the server runs."""
    return reply(Health())


async def get_readyz(call: ApiRequest[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """Answer whether jobs can run: Redis answers, and a worker is running."""
    load = await call.api.lab.queue.workers.load()
    if load.is_reachable and load.has_worker:
        return reply(Readiness(status="ready"))
    reason: Literal["redis-unavailable", "no-worker"] = "no-worker" if load.is_reachable else "redis-unavailable"
    return reply(Readiness(status="degraded", reason=reason), 503)


async def get_metrics(call: ApiRequest[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the figures of the service in Prometheus' text format."""
    api, lab = call.api, call.api.lab
    await lab.index.refresh()
    running = [run.run_id for run in lab.index.runs if run.state == "running"]
    speeds = [(await lab.feeds.read(run_id)).follower.status.tokens_per_second or 0.0 for run_id in running]
    text = await api.metrics.text(lab.queue, lab.index, sum(speeds), api.open_streams)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})
