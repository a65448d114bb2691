"""The curves of a run and of a group over HTTP: complete, or thinned by the server."""

import asyncio
from collections.abc import Iterator
from typing import Annotated

from aiohttp import web
from pydantic import Field
from pydantic_core import to_json

from trainer.artifacts.curves import Points, RunCurves
from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.errors import AppError, ErrorCode
from trainer.http.operations import WHOLE, ApiRequest, NoBody, Operation, Query, ResponseSpec, RunPath, operation

_PIECE = 20_000
"""Points that are written at once: a run may have a million."""


class CurveQuery(Query):
    points: Annotated[int | None, Field(ge=2, le=100_000), WHOLE] = None
    """About how many points of each curve to return; without it, all of them.

    A curve with more points is divided into buckets, and each keeps its lowest and its highest point.
    """
    from_step: Annotated[int, Field(ge=0), WHOLE] = 0
    """The first step."""
    to_step: Annotated[int | None, Field(ge=0), WHOLE] = None
    """The last step; without it, that of the run."""

    def check(self) -> None:
        """Raise INVALID_INPUT if the range has no step."""
        if self.to_step is not None and self.to_step < self.from_step:
            raise AppError(ErrorCode.INVALID_INPUT, "`to_step` must not be lower than `from_step`.")

    def pieces(self, points: Points) -> Iterator[list[tuple[int, float]]]:
        """Yield the points that are asked for, some thousands at a time."""
        if self.points is not None:
            found = points.thinned(self.points, self.from_step, self.to_step)
            yield from [found] if found else []
            return
        chosen = points.between(self.from_step, self.to_step)
        for start in range(chosen.start, chosen.stop, _PIECE):
            yield points[start : min(start + _PIECE, chosen.stop)]


class Curve(Frozen):
    """The curves of a run: pairs of step and number, in the order of the steps.

    Losses are in nats per token. A run on the CPU has no `gpu_memory_bytes`, and a run of an older version no `tokens`
    and `words`: these curves are empty.
    """

    run_id: Identifier
    last_event_id: int
    """Number of the last event that the curves have; `Last-Event-ID` of a stream of the events after it."""
    total_points: int
    """Points of the training loss, before the range and the thinning."""
    train: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]
    grad_norm: tuple[tuple[int, float], ...] = ()
    """Norm of the gradient before clipping."""
    learning_rate: tuple[tuple[int, float], ...] = ()
    tokens_per_second: tuple[tuple[int, float], ...] = ()
    gpu_memory_bytes: tuple[tuple[int, float], ...] = ()
    """Highest use of memory so far, on the GPU that uses most."""
    tokens: tuple[tuple[int, float], ...] = ()
    """Tokens of the training text read so far, over all epochs."""
    words: tuple[tuple[int, float], ...] = ()
    """Words of the training text read so far, over all epochs."""
    seconds: tuple[tuple[int, float], ...] = ()
    """Seconds of all attempts so far, without the time between them."""


async def get_curve(call: ApiRequest[RunPath, CurveQuery, NoBody]) -> web.StreamResponse:
    """Read the curves of a run by step: losses, gradient norm, learning rate, speed, memory, tokens, words and time."""
    query = call.query
    query.check()
    run = await call.api.run(call.client, call.path.run_id)
    curves = await call.api.feeds.curves(run.run_id)
    facts = {"run_id": run.run_id, "last_event_id": curves.last_seq, "total_points": len(curves.train)}
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(call.request)
    pieces = _json_pieces(facts, curves, query)
    while piece := await asyncio.to_thread(next, pieces, b""):
        await response.write(piece)
    await response.write_eof()
    return response


def _json_pieces(facts: dict[str, object], curves: RunCurves, query: CurveQuery) -> Iterator[bytes]:
    """Yield a Curve as JSON."""
    yield to_json(facts)[:-1]
    for name, points in curves.by_name().items():
        yield f',"{name}":['.encode()
        for at, found in enumerate(query.pieces(points)):
            yield (b"," if at else b"") + to_json(found)[1:-1]
        yield b"]"
    yield b"}"


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /runs/{run_id}/curve", get_curve, {200: ResponseSpec("The curves", Curve)}, tag="runs"),
)
