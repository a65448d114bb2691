"""The table of all operations, and those on the service itself: health, readiness and figures."""

from typing import Literal

from aiohttp import web

from trainer.contracts.base import Frozen
from trainer.http import (
    artifacts,
    batteries,
    completions,
    corpora,
    curves,
    experiments,
    exports,
    groups,
    inference,
    run_records,
    runs,
    tokenizers,
    workers,
)
from trainer.http.metrics import CONTENT_TYPE
from trainer.http.operations import ApiRequest, NoBody, NoQuery, Operation, ResponseSpec, operation, reply


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
    load = await call.api.queue.workers.load()
    if load.is_reachable and load.has_worker:
        return reply(Readiness(status="ready"))
    reason: Literal["redis-unavailable", "no-worker"] = "no-worker" if load.is_reachable else "redis-unavailable"
    return reply(Readiness(status="degraded", reason=reason), 503)


async def get_metrics(call: ApiRequest[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the figures of the service in Prometheus' text format."""
    api = call.api
    await api.index.refresh()
    running = [run.run_id for run in api.index.runs if run.state == "running"]
    speeds = [(await api.feeds.read(run_id)).follower.status.tokens_per_second or 0.0 for run_id in running]
    text = await api.metrics.text(api.queue, api.index, sum(speeds), api.open_streams)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


_HEALTHY = {200: ResponseSpec("The server runs", Health)}
OPERATIONS: tuple[Operation, ...] = (
    operation("GET /healthz", get_health, _HEALTHY, name="get_healthz", tag="service", access="open"),
    operation("GET /health", get_health, _HEALTHY, tag="service", access="open"),
    operation(
        "GET /readyz",
        get_readyz,
        {200: ResponseSpec("Jobs can run", Readiness), 503: ResponseSpec("Jobs wait", Readiness)},
        tag="service",
        access="open",
    ),
    operation("GET /metrics", get_metrics, {200: ResponseSpec("The figures", "text/plain")}, tag="service"),
    *workers.OPERATIONS,
    *runs.OPERATIONS,
    *curves.OPERATIONS,
    *run_records.OPERATIONS,
    *groups.OPERATIONS,
    *exports.OPERATIONS,
    *inference.OPERATIONS,
    *completions.OPERATIONS,
    *corpora.OPERATIONS,
    *tokenizers.OPERATIONS,
    *experiments.OPERATIONS,
    *batteries.OPERATIONS,
    *artifacts.OPERATIONS,
)
