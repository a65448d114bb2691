"""Work on groups of runs over seeds."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain

from trainer.artifacts.curves import Points, RunCurves, pieces
from trainer.artifacts.run_groups import runs_of_group
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.groups import GroupStatus, finished_group_error
from trainer.contracts.http_answers import CancelAnswer, CurveBand, GroupCurve
from trainer.contracts.operations import UNFINISHED_STATES
from trainer.contracts.parameters import CurveQuery, GroupPath, NoBody, NoQuery, WaitQuery
from trainer.contracts.reports import Report
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import at_end
from trainer.reports.bands import band_of
from trainer.reports.group_report import group_report
from trainer.reports.score_table import Curve


async def get_group(lab: Lab, asked: Asked[GroupPath, WaitQuery, NoBody]) -> GroupStatus:
    """Read the runs of a group, and the spread of their numbers; with `wait`, after their end or after this time."""
    return await at_end(lambda: lab.feeds.group(asked.path.group_id), asked.query.wait)


async def report_group(lab: Lab, asked: Asked[GroupPath, NoQuery, NoBody]) -> Report:
    """Read the runs of a group as `get_group` does; return what they say to people."""
    return group_report(await lab.feeds.group(asked.path.group_id))


async def get_group_curve(lab: Lab, asked: Asked[GroupPath, CurveQuery, NoBody]) -> GroupCurve:
    """Read the bands of the curves of a group, without the runs that have failed or were cancelled."""
    asked.query.check()
    group = await lab.feeds.group(asked.path.group_id)
    shown = group.of_state("queued", "running", "paused", "completed") or group.members
    curves = [await lab.feeds.curves(run.run_id) for run in shown]
    return await asyncio.to_thread(_group_curve, group.group_id, curves, asked.query)


def _group_curve(group_id: str, runs: Sequence[RunCurves], query: CurveQuery) -> GroupCurve:
    found: dict[str, object] = {"group_id": group_id, "total_points": max(len(run.by_name["train"]) for run in runs)}
    for name in runs[0].by_name:
        chosen = [list(chain.from_iterable(pieces(run.by_name[name], query))) for run in runs]
        band = curve_band(chosen, query.points)
        found[name] = band.mean if name in ("tokens", "words", "seconds") else band
    return GroupCurve.model_validate(found)


def curve_band(curves: Sequence[Curve], points: int | None = None) -> CurveBand:
    """Return the band of curves over the steps that all of them have come to, thinned to about `points`."""
    mean, low, high = (_thinned(one, points) for one in band_of(curves))
    return CurveBand(mean=mean, low=low, high=high)


def _thinned(curve: Curve, points: int | None) -> tuple[tuple[int, float], ...]:
    return tuple(curve if points is None else Points.of(curve).thinned(points))


async def cancel_group(lab: Lab, asked: Asked[GroupPath, NoQuery, NoBody]) -> CancelAnswer:
    """Cancel the runs of a group that have not ended: each ends after its current step, with its last checkpoint."""
    queue, group_id = await lab.live(), asked.path.group_id
    for run in await asyncio.to_thread(runs_of_group, lab.stores.runs, group_id):
        await queue.complete_group(run)  # a worker would start later what is not written yet
    group = await lab.feeds.group(group_id)
    # the answer to the first request with this key was lost
    is_repeated = asked.key is not None and group.has_ended and group.of_state("cancelled")
    if not is_repeated:
        await cancel_unfinished(group, queue.states.cancel)
    return CancelAnswer()


async def cancel_unfinished(group: GroupStatus, cancel: Callable[[str], Awaitable[bool]]) -> None:
    """Cancel the runs of a group that have not ended, by id; raises RUN_FINISHED if all have."""
    has_cancelled = False
    for run in group.of_state(*UNFINISHED_STATES):
        try:
            await cancel(run.run_id)
            has_cancelled = True
        except AppError as error:
            if error.code is not ErrorCode.RUN_FINISHED:  # it has just ended
                raise
    if not has_cancelled:
        raise finished_group_error(group.group_id)
