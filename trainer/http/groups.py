"""Operations on groups of runs over seeds."""

import asyncio
from collections.abc import Sequence
from itertools import chain

from aiohttp import web

from trainer.artifacts.curves import Points, RunCurves
from trainer.artifacts.run_groups import runs_of_group
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import Frozen, GivenName, Identifier
from trainer.contracts.groups import GroupStatus, cancel_unfinished, group_status
from trainer.contracts.http_answers import CancelAnswer
from trainer.http.api import Api, ApiClient
from trainer.http.curves import CurveQuery
from trainer.http.operations import (
    ApiRequest,
    NoBody,
    NoQuery,
    Operation,
    Query,
    ResponseSpec,
    WaitQuery,
    operation,
    reply,
)
from trainer.http.waiting import reply_at_end
from trainer.reports.bands import band_of
from trainer.reports.score_table import Curve


class GroupPath(Query):
    group_id: GivenName


class CurveBand(Frozen):
    """Mean, lowest and highest number of several runs, as pairs of step and number.

    Where a run has no number at a step, it has that on the line between its numbers before and after.
    """

    mean: tuple[tuple[int, float], ...]
    low: tuple[tuple[int, float], ...]
    high: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, curves: Sequence[Curve], points: int | None = None) -> "CurveBand":
        """Return the band of curves over the steps that all of them have come to, thinned to about `points`."""
        band = band_of(curves)
        mean, low, high = (_thinned(one, points) for one in band)
        return cls(mean=mean, low=low, high=high)


class GroupCurve(Frozen):
    """Bands of the numbers of a group, as in the curves of a run; tokens, words and seconds are means."""

    group_id: Identifier
    total_points: int
    """Points of the longest training loss of a run, before the range and the thinning."""
    train: CurveBand
    validation: CurveBand
    grad_norm: CurveBand
    learning_rate: CurveBand
    tokens_per_second: CurveBand
    gpu_memory_bytes: CurveBand
    tokens: tuple[tuple[int, float], ...]
    words: tuple[tuple[int, float], ...]
    seconds: tuple[tuple[int, float], ...]


async def read_group(api: Api, client: ApiClient, group_id: str, command: str = "status") -> GroupStatus:
    """Return the status of a group; raises RUN_NOT_FOUND, or FORBIDDEN if the client may not run the bot's command."""
    runs: list[RunDirectory] = await asyncio.to_thread(runs_of_group, api.queue.runs, group_id)
    for run in runs:
        await api.run(client, run.run_id, command)
    return group_status(group_id, await asyncio.gather(*(api.feeds.status(run.run_id) for run in runs)))


async def get_group(call: ApiRequest[GroupPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the runs of a group, and the spread of their numbers; with `wait`, after their end or after this time."""
    return await reply_at_end(call, lambda: read_group(call.api, call.client, call.path.group_id))


async def get_group_curve(call: ApiRequest[GroupPath, CurveQuery, NoBody]) -> web.StreamResponse:
    """Read the bands of the curves of a group, without the runs that have failed or were cancelled."""
    call.query.check()
    group = await read_group(call.api, call.client, call.path.group_id)
    shown = group.of_state("queued", "running", "paused", "completed") or group.members
    curves = [await call.api.feeds.curves(run.run_id) for run in shown]
    return reply(await asyncio.to_thread(_group_curve, group.group_id, curves, call.query))


def _group_curve(group_id: str, runs: Sequence[RunCurves], query: CurveQuery) -> GroupCurve:
    found: dict[str, object] = {"group_id": group_id, "total_points": max(len(run.train) for run in runs)}
    for name in runs[0].by_name():
        chosen = [list(chain.from_iterable(query.pieces(run.by_name()[name]))) for run in runs]
        band = CurveBand.of(chosen, query.points)
        found[name] = band.mean if name in ("tokens", "words", "seconds") else band
    return GroupCurve.model_validate(found)


def _thinned(curve: Curve, points: int | None) -> tuple[tuple[int, float], ...]:
    return tuple(curve if points is None else Points.of(curve).thinned(points))


async def cancel_group(call: ApiRequest[GroupPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Cancel the runs of a group that have not ended: each ends after its current step, with its last checkpoint."""
    group = await read_group(call.api, call.client, call.path.group_id, "cancel")
    # the answer to the first request with this key was lost
    is_repeated = call.idempotency is not None and group.has_ended and group.of_state("cancelled")
    if not is_repeated:
        await cancel_unfinished(group, call.api.queue.states.cancel)
    return reply(CancelAnswer())


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /groups/{group_id}", get_group, {200: ResponseSpec("The group", GroupStatus)}, tag="runs"),
    operation(
        "GET /groups/{group_id}/curve", get_group_curve, {200: ResponseSpec("The bands", GroupCurve)}, tag="runs"
    ),
    operation(
        "POST /groups/{group_id}/cancel",
        cancel_group,
        {200: ResponseSpec("The runs are cancelled, or will be after their current steps", CancelAnswer)},
        tag="runs",
    ),
)
