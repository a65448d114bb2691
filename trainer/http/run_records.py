"""Operations on what a run has stored besides its status: its request, its training samples, and its verification."""

import asyncio
import secrets
from pathlib import Path
from typing import Annotated

from aiohttp import web
from pydantic import Field

from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.inference import TrainingSample
from trainer.contracts.runs import SentRequest
from trainer.contracts.verification import VerificationStatus
from trainer.http.operations import (
    WHOLE,
    ApiRequest,
    NoBody,
    NoQuery,
    Operation,
    Query,
    ResponseSpec,
    RunPath,
    WaitQuery,
    operation,
    reply,
)
from trainer.http.waiting import reply_at_end


class SamplesQuery(Query):
    limit: Annotated[int, Field(ge=1, le=1000), WHOLE] = 100
    """Largest number of samples: the last ones."""


class RunRequest(Frozen):
    """The request of a run, and the runs and the experiment that it comes from."""

    run_id: Identifier
    request: SentRequest
    parent_run_id: Identifier | None
    """The run whose weights the training started from."""
    resumed_from_run_id: Identifier | None
    experiment_id: Identifier | None


class TrainingSamples(Frozen):
    """Samples that a run has generated during its training, in the order of their steps."""

    run_id: Identifier
    samples: tuple[TrainingSample, ...]
    total: int
    """Number of all samples so far."""


async def get_request(call: ApiRequest[RunPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the request of a run as it was sent, which trains the run again."""
    run = await call.api.run(call.client, call.path.run_id)
    record = await asyncio.to_thread(run.record)
    answer = RunRequest(
        run_id=run.run_id,
        request=record.request,
        parent_run_id=record.effective.parent_run_id,
        resumed_from_run_id=record.resumed_from_run_id,
        experiment_id=record.experiment_id,
    )
    return reply(answer)


async def get_samples(call: ApiRequest[RunPath, SamplesQuery, NoBody]) -> web.StreamResponse:
    """Read the samples of a run with `sample_every_steps`, also while it trains."""
    run = await call.api.run(call.client, call.path.run_id, "resume")
    lines = await asyncio.to_thread(_complete_lines, run.training_samples)
    samples = tuple(TrainingSample.model_validate_json(line) for line in lines[-call.query.limit :])
    return reply(TrainingSamples(run_id=run.run_id, samples=samples, total=len(lines)))


def _complete_lines(path: Path) -> list[bytes]:
    """Return the lines of a growing file, whose last line may still be incomplete."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


async def verify_run(call: ApiRequest[RunPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Check every file of a run against its recorded hash, and with `wait` answer at the end or after this time.

    A request with the same Idempotency-Key asks for the same verification, whose result is kept for a day.
    """
    run = await call.api.run(call.client, call.path.run_id)
    verifications, verification_id = call.api.verifications, call.request_id or secrets.token_hex(16)
    if not await verifications.is_started(verification_id, run.run_id):
        with call.api.limits.request(call.client.caller):
            await verifications.start(verification_id, run.run_id)
    return await reply_at_end(call, lambda: verifications.status(verification_id))


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /runs/{run_id}/request", get_request, {200: ResponseSpec("The request", RunRequest)}, tag="runs"),
    operation(
        "GET /runs/{run_id}/samples", get_samples, {200: ResponseSpec("The samples", TrainingSamples)}, tag="runs"
    ),
    operation(
        "POST /runs/{run_id}/verify",
        verify_run,
        {200: ResponseSpec("The status: at the end, or after the time to wait", VerificationStatus)},
        tag="runs",
        query_example={"wait": "60"},
    ),
)
