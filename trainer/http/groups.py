"""Operations on groups of runs over seeds."""

import asyncio
from collections.abc import Sequence

from aiohttp import web

from trainer.artifacts.run_groups import runs_of_group
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.groups import GroupStatus, cancel_unfinished, group_status
from trainer.contracts.http_answers import CancelAnswer
from trainer.http.api import Api, ApiClient
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
    group_id: Identifier


class LossBand(Frozen):
    """Mean, lowest and highest loss of several runs in nats per token, as pairs of step and loss.

    Where a run has no loss at a step, it has that on the line between its losses before and after.
    """

    mean: tuple[tuple[int, float], ...]
    low: tuple[tuple[int, float], ...]
    high: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> "LossBand":
        """Return the band of curves over the steps that all of them have come to."""
        band = band_of(curves)
        return cls(mean=tuple(band.mean), low=tuple(band.low), high=tuple(band.high))


class GroupCurve(Frozen):
    group_id: Identifier
    train: LossBand
    validation: LossBand


async def read_group(api: Api, client: ApiClient, group_id: str, command: str = "status") -> GroupStatus:
    """Return the status of a group; raises RUN_NOT_FOUND, or FORBIDDEN if the client may not run the bot's command."""
    runs: list[RunDirectory] = await asyncio.to_thread(runs_of_group, api.queue.runs, group_id)
    for run in runs:
        await api.run(client, run.run_id, command)
    return group_status(group_id, await asyncio.gather(*(api.feeds.status(run.run_id) for run in runs)))


async def get_group(call: ApiRequest[GroupPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the runs of a group, and the spread of their numbers; with `wait`, after their end or after this time."""
    return await reply_at_end(call, lambda: read_group(call.api, call.client, call.path.group_id))


async def get_group_curve(call: ApiRequest[GroupPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the band of the loss curves of a group, without the runs that have failed or were cancelled."""
    group = await read_group(call.api, call.client, call.path.group_id)
    shown = group.of_state("queued", "running", "paused", "completed") or group.members
    followers = [(await call.api.feeds.read(run.run_id)).follower for run in shown]
    train, validation = ([one.curves.train for one in followers], [one.curves.validation for one in followers])
    return reply(GroupCurve(group_id=group.group_id, train=LossBand.of(train), validation=LossBand.of(validation)))


async def cancel_group(call: ApiRequest[GroupPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Cancel the runs of a group that have not ended: each ends after its current step, with its last checkpoint."""
    group = await read_group(call.api, call.client, call.path.group_id, "cancel")
    # the answer to the first request with this key was lost
    is_repeated = call.idempotency is not None and group.has_ended and group.of_state("cancelled")
    if not is_repeated:
        await cancel_unfinished(group, call.api.queue.cancel)
    return reply(CancelAnswer())


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /groups/{group_id}", get_group, {200: ResponseSpec("The group", GroupStatus)}, tag="runs"),
    operation("GET /groups/{group_id}/curve", get_group_curve, {200: ResponseSpec("The band", GroupCurve)}, tag="runs"),
    operation(
        "POST /groups/{group_id}/cancel",
        cancel_group,
        {200: ResponseSpec("The runs are cancelled, or will be after their current steps", CancelAnswer)},
        tag="runs",
    ),
)
