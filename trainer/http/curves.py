"""The curves of a run over HTTP, written as they are read: a run may have a million points."""

import asyncio
from collections.abc import Iterator

from aiohttp import web
from pydantic_core import to_json

from trainer.artifacts.curves import RunCurves, pieces
from trainer.contracts.parameters import CurveQuery, NoBody, RunPath
from trainer.http.operations import ApiRequest


async def get_curve(call: ApiRequest[RunPath, CurveQuery, NoBody]) -> web.StreamResponse:
    """Read the curves of a run by step: losses, gradient norm, learning rate, speed, memory, tokens, words and time."""
    query = call.query
    query.check()
    run_id = call.path.run_id
    curves = await call.api.lab.feeds.curves(run_id)
    facts = {"run_id": run_id, "last_event_id": curves.last_seq, "total_points": len(curves.by_name["train"])}
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(call.request)
    written = _json_pieces(facts, curves, query)
    while piece := await asyncio.to_thread(next, written, b""):
        await response.write(piece)
    await response.write_eof()
    return response


def _json_pieces(facts: dict[str, object], curves: RunCurves, query: CurveQuery) -> Iterator[bytes]:
    """Yield a Curve as JSON."""
    yield to_json(facts)[:-1]
    for name, points in curves.by_name.items():
        yield f',"{name}":['.encode()
        for at, found in enumerate(pieces(points, query)):
            yield (b"," if at else b"") + to_json(found)[1:-1]
        yield b"]"
    yield b"}"
