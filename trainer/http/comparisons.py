"""The comparison of runs."""

import asyncio
from typing import Annotated

from aiohttp import web
from pydantic import Field

from trainer.contracts.inference import EvalSplit
from trainer.http.operations import OTHER_RUN, RUN, Answer, Call, NoBody, NoQuery, Operation, Query, operation, reply
from trainer.reports.comparison import Comparison, Measurement, check_different, compare, summary_on

_RUN_IDS = r"^[a-z0-9][a-z0-9_-]{0,63}(,[a-z0-9][a-z0-9_-]{0,63}){1,3}$"


class CompareQuery(Query):
    runs: Annotated[str, Field(pattern=_RUN_IDS)]
    """Ids of two to four runs, separated by commas; the first one is compared with the others."""
    split: EvalSplit = "test"


async def compare_runs(call: Call[NoQuery, CompareQuery, NoBody]) -> web.StreamResponse:
    """Compare metrics and settings of runs on a split."""
    split, names = call.query.split, call.query.runs.split(",")
    measured: list[Measurement] = []
    for name in names:
        run = await call.api.run(call.client, name, "compare")
        manifest = await asyncio.to_thread(run.completed_manifest)
        follower = (await call.api.feeds.read(name)).follower
        measured.append(Measurement(manifest, summary_on(manifest, split), follower.status.tokens_per_second))
    check_different(names)
    return reply(compare(measured, split=split))


OPERATIONS: tuple[Operation, ...] = (
    operation(
        "GET /compare",
        compare_runs,
        (NoQuery, CompareQuery, NoBody),
        {200: Answer("The comparison", Comparison)},
        tag="runs",
        query_example={"runs": f"{RUN},{OTHER_RUN}"},
    ),
)
